/* Bounds of model calls, caches, filters; by way of base/limits.h. */
#ifndef NEXUS_BASE_LIMITS_LLM_H
#define NEXUS_BASE_LIMITS_LLM_H

/* llm */
#define PROMPT_TOKENS_BASE                                                                         \
    256 /* what a template adds on its own: default system text, date, reply header */
#define PROMPT_TOKENS_PER_MESSAGE 16
#define PROMPT_TOKENS_PER_TOOL 64
#define PROMPT_TOKENS_TOOLS 1024 /* the instructions a template adds once when there are tools */
#define PROMPT_TOKENS_PER_IMAGE                                                                    \
    49152 /* the dearest known: 48,169 for a 768 x 2048 image on gpt-4o-mini */
#define PROMPT_MESSAGES_MAX 20000
#define PROMPT_PARTS_MAX 4096 /* of one message */
#define PROMPT_TOOLS_MAX 128
#define PROVIDER_REQUEST_BYTES_MAX (32u << 20)
#define PROVIDER_ANSWER_BYTES_MAX (16u << 20)
#define PROVIDER_ERROR_BODY_BYTES_MAX (64u << 10)
#define PROVIDER_STREAM_BYTES_MAX (64ull << 20)
#define PROVIDER_QUOTE_BYTES_MAX 300 /* of a provider's own words in our errors */
#define PROVIDER_TOOL_CALLS_MAX 64   /* in one answer */
#define PROVIDER_MODELS_MAX 1000
#define PROVIDER_KEYS_MAX 64
#define PROVIDER_RETRY_AFTER_MS_MAX (24ll * 3600 * 1000)
#define PROVIDER_TAIL_WAIT_MS                                                                      \
    20 /* for the end of a stream's body after [DONE], so that the connection is kept */
#define ANTHROPIC_OPEN_BLOCKS_MAX                                                                  \
    72 /* of one streamed answer at once: every tool call and a few more */
#define MODEL_TARGETS_MAX 64
#define ROUTER_ATTEMPTS_MAX 64   /* of one call, all targets and keys together */
#define ROUTER_RETRIES_DEFAULT 2 /* further attempts on a target that failed */
#define ROUTER_RETRIES_MAX 10
#define ROUTER_WAIT_MS_MAX 5000 /* before one attempt; a longer Retry-After is the caller's */
#define ROUTER_BACKOFF_MS 250   /* ceiling of the first back-off; doubles */
#define ROUTER_BACKOFF_MS_MAX 4000
#define ROUTER_RETRY_MILLI 200 /* of a retry each call of a target earns */
#define ROUTER_RETRY_MILLI_MAX 10000
#define ROUTER_RETRY_FLOOR_MS 1000 /* one retry in that time is free */
#define ROUTER_HEDGE_MILLI 50      /* of a hedge each call of a target earns */
#define ROUTER_HEDGE_MILLI_MAX 5000
#define ROUTER_LATENCY_BUCKETS 136 /* eighths of an octave, 1 ms .. 131 s */
#define ROUTER_LATENCY_SAMPLES_MIN 20
#define ROUTER_LATENCY_SAMPLES_MAX 1024 /* then all counts are halved */
#define BREAKER_BUCKETS 10
#define BREAKER_BUCKET_MS 3000
#define BREAKER_CALLS_MIN 20 /* in the window, before a share counts */
#define BREAKER_FAILED_PER_MILLE 500
#define BREAKER_FAILURES_IN_ROW 5
#define BREAKER_OPEN_MS 5000 /* the first time; doubles */
#define BREAKER_OPEN_MS_MAX 60000
#define BREAKER_PROBES 2
#define BREAKER_RAMP_MS 10000
#define BREAKER_WHY_BYTES 160u /* kept of the last failure's text */
#define ROUTER_BLAMED_MS                                                                           \
    30000 /* a caller's own deadline that is shorter says nothing of a target */
#define ROUTER_KEY_LIMITED_MS 1000 /* a 429 that says nothing; doubles */
#define ROUTER_KEY_LIMITED_MS_MAX 60000
#define ROUTER_KEY_REFUSED_MS (2 * 60 * 1000) /* 401, 403, no quota; doubles */
#define ROUTER_KEY_REFUSED_MS_MAX (30 * 60 * 1000)
#define ROUTER_KEYS_TOLD_MS 60000     /* the log says no more often that a target has no key left */
#define ROUTER_KEY_ALONE_MS_MAX 30000 /* the only key of a provider is asked again that soon */
#define PRICE_ENTRIES_MAX 5000        /* of all price lists together */
#define UNKNOWN_MODEL_NAMES_MAX 20    /* listed in the error */
#define DISCOVER_LOCAL_TIMEOUT_MS 300
#define DISCOVER_REMOTE_TIMEOUT_MS 3000
#define OFFLINE_SCRIPT_BYTES_MAX (256u << 10)
#define OFFLINE_SCRIPT_STEPS_MAX 256
#define OFFLINE_SLEEP_MS_MAX 60000

/* llm: response cache and embeddings */
#define RESPONSE_CACHE_BYTES_DEFAULT (64u << 20)
#define RESPONSE_CACHE_BYTES_MIN (64u << 10)
#define RESPONSE_CACHE_ENTRY_BYTES_MAX (1u << 20) /* a longer answer is not kept */
#define RESPONSE_CACHE_SHARDS_MAX 16u
#define RESPONSE_CACHE_WAITERS_MAX 256u /* for one answer in the making */
#define RESPONSE_CACHE_WAIT_MS 30000    /* then a follower makes its own call */
#define RESPONSE_CACHE_TTL_MS_MAX (366ll * 24 * 3600 * 1000)
#define SEMANTIC_SCOPE_ENTRIES_MAX 512u    /* questions of one scope; the oldest makes room */
#define SEMANTIC_TEXT_BYTES_MAX (8u << 10) /* a longer question is not compared */
#define SEMANTIC_EMBED_MS 200   /* for the question's vector; past it the lookup is a miss */
#define SEMANTIC_BYTES_SHARE 4u /* the index may take this part of the cache's bytes besides */
#define EMBED_INPUTS_MAX 2048u  /* of one caller, and of one upstream call */
#define EMBED_DIMENSION_MAX VECTOR_DIMENSION_MAX
#define EMBED_BATCH_TOKENS_MAX 300000 /* of one upstream call, by the upper bound */
#define EMBED_BATCH_WAIT_MS 5 /* of the oldest text in a batch while another call is in flight */
#define EMBED_BATCH_QUEUE_MAX 65536u /* texts that wait on one loop */
#define EMBED_BATCH_GROUPS_MAX 1024u /* of one loop */
#define EMBED_BATCH_CALLS_MAX 64u    /* upstream calls of one group at a time */
#define EMBED_CALL_TIMEOUT_MS 120000 /* of one upstream call, whatever its callers would wait */
#define EMBED_ANSWER_BYTES_MAX (96u << 20)
#define EMBED_ARENA_BYTES_MAX                                                                      \
    (512u << 20) /* one upstream call: its texts, the answer, its tree, the vectors */
#define EMBED_REPLY_PIECE_BYTES (64u << 10) /* an answer is written in pieces of about this size */

/* llm, content filter */
#define GUARD_CHANNELS_MAX 256u    /* texts that one streamed answer may be writing at a time */
#define GUARD_NUMBER_BYTES_MAX 64u /* of a number in arguments; longer ones are read as text */
#define GUARD_LOOP_BYTES_MAX (64u << 10) /* filtered on a loop at once; more on the blocking pool */
#define GUARD_TALLY_RULES_MAX 32u        /* rules that one audit entry names */

/* filter */
#define FILTER_HOLD_BYTES_MAX 256u  /* held back of one text */
#define FILTER_MATCH_BYTES_MAX 250u /* that room less what is looked at behind a match */
#define FILTER_GOING_ON_BYTES 64u /* a match that ends so near to it, and can go on, is going on */
#define FILTER_SLICE_BYTES 4096u  /* scanned at once */
#define FILTER_USER_RULES_MAX 128u
#define FILTER_RULES_MAX 256u
#define FILTER_RULE_NAME_BYTES_MAX 64u
#define FILTER_PATTERN_BYTES_MAX 4096u
#define FILTER_PATTERN_DEPTH_MAX 32u
#define FILTER_REPEAT_MAX 512
#define FILTER_PROGRAM_MAX 4096u
#define FILTER_HOLD_STATES_MAX 8192u /* of one automaton; more rules make several */
#define FILTER_HOLDS_MAX 16u

#endif
