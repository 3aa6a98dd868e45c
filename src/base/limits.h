/*
 * Every bound of the program, in one place: those of the lower layers here, the others in base/limits/.  A limit is an ordinary ERROR_LIMIT, never a crash; each has a test at the
 * bound and one past it.  Sizes are bytes, times are in the unit their name says.
 */
#ifndef NEXUS_BASE_LIMITS_H
#define NEXUS_BASE_LIMITS_H

#include "base/limits/agent.h"
#include "base/limits/gateway.h"
#include "base/limits/llm.h"
#include "base/limits/net.h"
#include "base/limits/orchestrator.h"

/* base */
#define ARENA_BYTES_DEFAULT (8u << 20)
#define ARENA_CHUNK_BYTES_FIRST 8192u /* a forwarded call fits */
#define ARENA_CHUNK_BYTES_MAX (64u << 10)
#define ARENA_LARGE_BYTES                                                                          \
    (16u << 10) /* from here on an allocation that does not fit gets its own block */
#define ARENA_CACHE_CHUNKS_MAX 256u /* first chunks kept per thread */
#define STRBUF_BYTES_FIRST 128u
#define NUMBER_TEXT_BYTES_MAX 256u
#define FAULT_POINTS_MAX 16u
#define JSON_BYTES_MAX (16u << 20)
#define JSON_DEPTH_MAX 64u
#define LOG_LINE_BYTES_MAX 8192u
#define NEAREST_BYTES_MAX 64u /* of a word, and of a name it may have meant */
#define YAML_BYTES_MAX (1u << 20)
#define YAML_EXPANDED_BYTES_MAX (4u << 20) /* as JSON, aliases expanded */
#define YAML_VALUES_MAX 100000u

/* runtime */
#define LOOP_COUNT_MAX 64
#define COROUTINE_COUNT_MAX 200000
#define COROUTINE_STACK_BYTES (64u << 10)
#define MAILBOX_MESSAGES_MAX 65536
#define BLOCKING_THREADS 4
#define BLOCKING_QUEUE_MAX 4096
#define GROUP_CHILDREN_MAX 256
#define STACK_SLAB_STACKS 256u /* one map of 17 MiB address space */
#define STACK_GUARD_INTERVAL                                                                       \
    16u /* where the kernel has no free guards: 200,000 stacks stay under 65,530 maps */
#define STACK_POOL_WARM_MAX 512u    /* free stacks that keep their pages, per loop */
#define LOOP_TURN_SWITCHES_MAX 512u /* then the loop looks at its sockets again */
#define LOOP_REST_MS 10000          /* so often pools give back a part of what nobody needed */
#define LOOP_SLICE_WARN_MS 100      /* who computes longer starves its loop: logged in dev builds */
#define LOOP_STOP_WARN_MS 5000      /* a stopping loop tells whom it still waits for */

/* observe */
#define TRACE_BATCH_BYTES_MAX (2u << 20) /* finished spans that wait for the exporter */
#define TRACE_SPAN_BYTES_MAX (80u << 10) /* all attributes at their length, escaped */
#define TRACE_TEXT_BYTES_MAX 512u        /* of one attribute */
#define TRACE_EXPORT_MS 1000
#define TRACE_EXPORT_TIMEOUT_MS 10000

/* store */
#define STORE_BATCH_ROWS_MAX 500
#define LEDGER_MERGE_ROWS_MAX 256u /* of a batch: how far a settlement looks for one to join */
#define STORE_GROUP_ROWS_MAX 2000  /* of several batches that become one transaction */
#define STORE_QUEUE_MAX 20000
#define STORE_SUBMIT_DELAY_MS                                                                      \
    20 /* what nobody waits for is stored together with what comes in that time */
#define STORE_REST_MS 10000  /* a connection with at most so many jobs ... */
#define STORE_REST_JOBS 300u /* ... within this time gives the memory of its cache back */
#define STORE_PAGE_MAX 200
#define STORE_SIFT_ROWS_MAX 2000    /* read for one page of a list that no index answers */
#define STORE_CHECKPOINT_PAGES 4000 /* of the WAL, before they go into the database */
#define STORE_QUEUE_BYTES_MAX (256u << 20)
#define STORE_READ_QUEUE_MAX 20000
#define STORE_CACHE_BYTES_DEFAULT (16u << 20) /* of a connection to the embedded store */
#define STORE_READERS_MAX 8
#define STORE_VALUE_BYTES_MAX (16u << 20)
#define STORE_CURSOR_BYTES_MAX 4096u
#define STORE_STATEMENTS_MAX 512
#define AUDIT_CHECKPOINT_ENTRIES 256
#define AUDIT_HEADS_MAX 4096
#define KV_KEY_BYTES_MAX 512u
#define KV_VALUE_BYTES_MAX (1u << 20)
#define KV_TTL_MS_MAX (366ll * 24 * 3600 * 1000)
#define VECTOR_DIMENSION_DEFAULT 1536
#define VECTOR_DIMENSION_MAX 8192u
#define VECTOR_POINTS_MAX 256u
#define VECTOR_RESULTS_MAX 200u
#define VECTOR_METADATA_BYTES_MAX (1u << 20)
#define VECTOR_CACHE_BYTES_MAX (256u << 20)
#define VECTOR_SCAN_POINTS_MAX 100000u

/* observe */
#define METRIC_SERIES_MAX 1000u /* of one family; the rest is "other" */
#define METRIC_LABEL_BYTES_MAX 128u

#endif
