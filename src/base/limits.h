/*
 * Every bound of the program, in one place.  A limit is an ordinary ERROR_LIMIT, never a crash; each has a test at the
 * bound and one past it.  Sizes are bytes, times are in the unit their name says.
 */
#ifndef NEXUS_BASE_LIMITS_H
#define NEXUS_BASE_LIMITS_H

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
#define LOOP_SLICE_WARN_MS                                                                         \
    100 /* a coroutine that computes longer than this starves its loop: logged in dev builds */
#define LOOP_STOP_WARN_MS 5000 /* a stopping loop tells whom it still waits for */

/* net */
#define HTTP_HEAD_BYTES_MAX (32u << 10)
#define HTTP_HEADER_COUNT_MAX 100
#define HTTP_URI_BYTES_MAX (8u << 10)
#define HTTP_BODY_BYTES_MAX (16u << 20)
#define HTTP_CONNECTIONS_MAX 16384
#define HTTP_HEAD_TIMEOUT_MS 10000
#define HTTP_BODY_IDLE_TIMEOUT_MS 15000
#define HTTP_IDLE_TIMEOUT_MS 75000
#define HTTP_WRITE_IDLE_TIMEOUT_MS 30000
#define HTTP_READ_BUFFER_BYTES                                                                     \
    (64u << 10) /* one read; also what a request may send ahead of its handler */
#define HTTP_WRITE_BUFFER_BYTES                                                                    \
    (64u << 10) /* reply bytes that wait for a slow peer, per connection */
#define HTTP_REPLY_HEAD_BYTES_MAX (32u << 10)
#define HTTP_CHUNK_OVERHEAD_BYTES_MAX                                                              \
    (32u << 10) /* framing, extensions and trailers; 8 more for each byte of body */
#define HTTP_UNREAD_BODY_BYTES_MAX                                                                 \
    (64u << 10) /* of a body nobody read, drained to keep the connection */
#define HTTP_LINGER_BYTES_MAX                                                                      \
    (1u << 20) /* read and dropped after a refusal, so that the peer gets it */
#define HTTP_LINGER_MS 2000
#define HTTP_HALF_CLOSE_GRACE_MS 2000
#define HTTP_ACCEPTS_PER_TURN 64
#define HTTP_BUFFERS_SPARE_MAX 256 /* kept per loop: small ones */
#define HTTP_BUFFERS_LARGE_SPARE_MAX 32
#define HTTP_REQUESTS_SPARE_MAX 256 /* kept per loop */
#define HTTP_DRAIN_CUT_MS 5000      /* for handlers to notice that they were cut */
#define HTTP_INTERIM_ANSWERS_MAX 8
#define HTTP_EXCHANGES_SPARE_MAX 256      /* kept per client */
#define HTTP_RELAY_READ_BYTES (32u << 10) /* of an upstream's body, at once */
#define HTTP_RELAY_HIGH_BYTES (32u << 10) /* wait for a relay's client: its upstream is not read */
#define HTTP_RELAY_LOW_BYTES (8u << 10)   /* it is read again */
#define HTTP_RELAY_OUTPUT_BYTES_MAX                                                                \
    (1u << 20) /* wait for a relay's client whose owner writes more than it was given */
#define HTTP_RELAY_TAIL_MS                                                                         \
    20 /* for the end of a finished relay's upstream body, so that its connection is kept */
#define DNS_CACHE_ENTRIES_MAX 1024
#define DNS_CACHE_MS 30000
#define DNS_CACHE_FAILURE_MS 2000
#define DNS_ADDRESSES_MAX 8
#define DNS_SERVERS_MAX 8u    /* of the configuration's dns.servers */
#define DNS_TTL_MS_MIN 1000   /* an answer of a configured server lives at least, */
#define DNS_TTL_MS_MAX 300000 /* and at most so long, whatever its TTL */
#define DNS_TRY_MS 2000       /* for one server to answer */
#define DNS_TRIES 2
#define DNS_PACKET_BYTES_MAX 1232 /* over UDP; a longer answer is asked for over TCP */
#define DNS_LOOKUP_MS 10000       /* for all servers and tries */
#define TLS_SESSIONS_MAX 256
#define TLS_HANDSHAKE_TIMEOUT_MS 5000
#define TLS_HANDSHAKES_MAX 1024 /* going on at once, per loop; further clients are closed */
#define TLS_TICKET_SECONDS 7200 /* how long a client may resume its session */
#define EGRESS_REDIRECTS_MAX 5
#define EGRESS_PATTERNS_MAX 1024
#define SSE_EVENT_BYTES_MAX (1u << 20)
#define UPSTREAM_CONNECT_TIMEOUT_MS 5000
#define UPSTREAM_FIRST_BYTE_TIMEOUT_MS 120000
#define UPSTREAM_IDLE_TIMEOUT_MS 60000
#define UPSTREAM_POOL_IDLE_MAX 512
#define UPSTREAM_POOL_IDLE_MS 30000

/* mcp */
#define MCP_MESSAGE_BYTES_MAX (16u << 20)
#define MCP_DEPTH_MAX 48u
#define MCP_ID_BYTES_MAX 256u
#define MCP_METHOD_BYTES_MAX 128u
#define MCP_TOOL_NAME_BYTES_MAX 128u
#define MCP_TOOL_TITLE_BYTES_MAX 512u
#define MCP_TOOL_DESCRIPTION_BYTES_MAX (16u << 10)
#define MCP_PARAMS_MAX 32u /* x-mcp-header of one tool */
#define MCP_PARAM_DEPTH_MAX 8u
#define MCP_PARAM_NAME_BYTES_MAX 64u

/* agent, MCP client */
#define MCP_SERVERS_MAX 64u
#define MCP_SERVER_NAME_BYTES_MAX 32u
#define MCP_TOOLS_PER_SERVER_MAX 2000u
#define MCP_LIST_BYTES_MAX (16u << 20) /* all pages of one server's list */
#define MCP_LIST_PAGES_MAX 200u
#define MCP_CURSOR_BYTES_MAX 4096u
#define MCP_OUTSTANDING_MAX 256u /* requests of one server at a time */
#define MCP_CALL_MS 60000    /* of one tool call, unless the server's `timeout` says otherwise */
#define MCP_CONTROL_MS 15000 /* discover, initialize, tools/list, ping */
#define MCP_PROBE_MS 5000    /* server/discover: a silent server is one of the session era */
#define MCP_PING_MS 30000    /* between two looks at a server that says nothing */
#define MCP_BACKOFF_MS 500   /* before the first new attempt; doubles */
#define MCP_BACKOFF_MS_MAX 60000
#define MCP_REFRESH_MS_MIN 1000 /* between two lists of one server */
#define MCP_REFRESH_MS_MAX (3600ll * 1000)
#define MCP_RESUMES_MAX 8u               /* of one broken event stream (Last-Event-ID) */
#define MCP_OAUTH_BYTES_MAX (256u << 10) /* of one document or answer of an authorization server */
#define MCP_OAUTH_TOKEN_BYTES_MAX (16u << 10)
#define MCP_OAUTH_URL_BYTES_MAX 2048u
#define MCP_OAUTH_ISSUERS_MAX 8u        /* authorization servers of one resource that are read */
#define MCP_LOGIN_MS (10ll * 60 * 1000) /* between the login's URL and its callback */
#define MCP_LOGINS_MAX 1024u            /* begun and not finished, of all users */
#define MCP_LOGINS_PER_USER 4u          /* the oldest makes room */
#define MCP_PERSONS_MAX 1024u /* users of one server in memory; the one idle longest makes room */
#define MCP_PERSON_IDLE_MS (10ll * 60 * 1000)
#define MCP_TOKEN_EARLY_MS                                                                         \
    60000 /* so long before its end, at most a fifth of its life, a token is renewed */
#define MCP_STDERR_LINES_PER_MINUTE 60
#define MCP_GARBAGE_LINES_MAX                                                                      \
    100u /* on stdout, that are no messages; then the server is restarted */
#define MCP_OUTPUT_BYTES_MAX TOOL_RESULT_BYTES_MAX
#define MCP_QUEUE_BYTES_MAX (32u << 20) /* written to a process that does not read */
#define MCP_STOP_MS 2000                /* between closing stdin, SIGTERM and SIGKILL */
#define PROCESS_ARGUMENTS_MAX 128u
#define PROCESS_READ_BYTES (64u << 10)
#define PROCESS_ERROR_LINE_BYTES_MAX 1024u /* of stderr; the rest of a line is dropped */

/* agent, the sandbox as a process of its own */
#define REMOTE_BODY_BYTES_MAX ((16u << 20) + (256u << 10)) /* of one message */
#define REMOTE_PENDING_BYTES_MAX (64u << 20) /* of one link, not yet taken by the other side */
#define REMOTE_CALLS_MAX 2048u               /* in flight on one link */
#define REMOTE_TOOLS_MAX SANDBOX_TOOLS_MAX   /* known to one link; the oldest idle one makes room */
#define REMOTE_MODULES_MAX 16u               /* of one tool */
#define REMOTE_HOST_CALLS_MAX 64u
#define REMOTE_CODE_BYTES_MAX (256u << 20) /* one compiled module */
#define REMOTE_CODE_VERSION_BYTES_MAX 63u
#define REMOTE_START_MS 30000 /* from the start of the process to its first word */
#define REMOTE_WAIT_MS 5000   /* a call waits that long for a process that is being started */
#define REMOTE_POLL_MS 5      /* how often it looks */
#define REMOTE_COMPILE_MS (4 * 60 * 1000)
#define REMOTE_COMPILE_CPU_S 120 /* Python takes 12 to 18 */
#define REMOTE_PING_MS 1000      /* between two heartbeats */
#define REMOTE_HUNG_MS 8000      /* without a heartbeat: the process is killed */
#define REMOTE_CANCEL_MS 3000    /* a cancelled call that does not end in this time: it is hung */
#define REMOTE_BACKOFF_MS 10     /* before the process is started again; doubles */
#define REMOTE_BACKOFF_MS_MAX 2000
#define REMOTE_STEADY_MS 2000        /* a process that lived that long begins anew */
#define REMOTE_FILES_OPEN_MAX 65536u /* descriptors of the sandbox process */

/* agent: workspaces and the file_system host call */
#define WORKSPACE_BYTES_MAX (100ll << 20) /* of one session; configurable */
#define WORKSPACE_ENTRIES_MAX 1000        /* files and folders of one session; configurable */
#define WORKSPACE_WALK_MAX 20000u         /* entries that one walk looks at */
#define WORKSPACE_NAME_BYTES_MAX 200u
#define WORKSPACE_PATH_BYTES_MAX 1024u
#define WORKSPACE_DEPTH_MAX 16u
#define WORKSPACE_TEMPORARY_MS (10ll * 60 * 1000) /* older ones of ours were left by a crash */
#define WORKSPACE_SWEEP_MAX 64u                   /* workspaces that one sweep looks at */
#define WORKSPACE_ERASE_MAX 20000u                /* entries that one sweep removes of one */
#define HOST_FILES_BYTES_MAX (10u << 20)          /* read or written by one call */
#define HOST_FILES_ENTRIES_MAX 500u               /* of one answer */
#define HOST_FILES_SEARCH_BYTES_MAX (64ll << 20)  /* looked through by one call */
#define HOST_FILES_LINE_BYTES_MAX 240u            /* of a found line */
#define HOST_FILES_LOCK_MS 3                      /* between two tries for a workspace's lock */

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
#define ROUTER_BLAMED_MS                                                                           \
    30000 /* a caller's own deadline that is shorter says nothing of a target */
#define ROUTER_KEY_LIMITED_MS 1000 /* a 429 that says nothing; doubles */
#define ROUTER_KEY_LIMITED_MS_MAX 60000
#define ROUTER_KEY_REFUSED_MS (2 * 60 * 1000) /* 401, 403, no quota; doubles */
#define ROUTER_KEY_REFUSED_MS_MAX (30 * 60 * 1000)
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

/* orchestrator */
#define POLICY_MEMO_PLACES 4096       /* answers remembered per policy set */
#define POLICY_QUESTION_BYTES_MAX 512 /* a longer question is not remembered */
#define POLICY_MEMO_ARGUMENTS_BYTES_MAX                                                            \
    (64u << 10) /* nor is a call with longer arguments or policy context */
#define LEDGER_ACCOUNT_IDLE_MS 60000
#define LEDGER_LEASE_CALLS_AHEAD 4 /* at first; doubled while a lease is used up within a second */
#define LEDGER_LEASE_CALLS_MAX 256
#define LEDGER_LEASE_IDLE_MS 1000 /* a lease that nobody draws on is given back */
#define LEDGER_ALERTS_MAX 16      /* that one settlement passes */
#define LEDGER_RATE_SLOTS 12      /* of the minute that a rate looks at */
#define LEDGER_RATE_MS 60000
#define LEDGER_HELD_BACK_PART 10  /* at most this part of a limit is kept for last calls */
#define LEDGER_SHARE_TRIES_MAX 32 /* of one grant against other nodes at the same moment */
#define BUDGET_ALERTS_MAX 8       /* thresholds of one account */
#define BUDGET_GAUGES_MAX 32u     /* accounts of one level that have gauges of their own */
#define BUDGET_SWEEP_MS 1000
#define BUDGET_SWEEP_PAGES_MAX 50 /* of accounts that nobody needs, in one sweep */
#define BUDGET_BURY_MS 30000
#define BUDGET_SHARE_STILL_MS 60000 /* a dead node's share is left alone for so long */
#define USAGE_FLUSH_MS 50           /* what calls came to waits this long in memory at most */
#define USAGE_CHUNK_RECORDS 1000    /* one tenant's; then it is written at once */
#define USAGE_CHUNK_RECORDS_MAX                                                                    \
    20000                         /* while the store takes nothing; sums go on, lines are dropped */
#define USAGE_WRITE_TRIES_MAX 10  /* of a batch that the store refuses for what is in it */
#define USAGE_RETRY_MS 500        /* times the tries so far ... */
#define USAGE_RETRY_MAX_MS 10000  /* ... and no longer */
#define USAGE_NAME_BYTES_MAX 512u /* of a model, provider or user in a record */
#define USAGE_SCAN_CHUNKS_MAX 200 /* read for one page of calls */
#define USAGE_FIND_CHUNKS_MAX 2000 /* read to find one call */
#define USAGE_PAGE_CHUNKS 8
#define USAGE_GROUPS_MAX 10000 /* of one report */
#define USAGE_COMMENT_BYTES_MAX 2000u
#define CONTENT_AUDIT_BYTES_MAX (32u << 10) /* details of one entry about the content filter */
#define RUN_STEPS_MAX 64
#define RUN_ROOM_FACTOR 8    /* so many times what is pending: it makes no difference */
#define RUN_TOOLS_HOLD_MS 25 /* pure calls within it are stored with their intents */
#define RUN_TOOL_CALLS_PARALLEL_MAX 16
#define RUN_TOOLS_OFFERED_MAX 20u /* of an agent's tools; of more a model gets those that fit */
#define RUN_TOOLS_FOUND_MAX 10u   /* by the newest message, and by one tool_search */
#define RUN_TOOLS_ADDED_MAX 64u   /* pinned, used and found in one conversation */
#define RUN_NESTED_CALLS_MAX 128  /* made by the guests of one answer's calls */
#define RUN_ANSWER_PARTS_MAX 1024 /* thoughts, texts and calls of one model answer */
#define RUN_CLIENT_TOOLS_BYTES_MAX (256u << 10) /* definitions that a caller brings */
#define RUN_CLIENT_RESULT_WAIT_MS (3600ll * 1000)
#define RUN_CALL_NAME_BYTES_MAX 1024u /* a tool's name or a call's id as a model gives them */
#define RUN_MODEL_ATTEMPTS_MAX 4
#define RUN_MODEL_BACKOFF_MS 250
#define RUN_MODEL_BACKOFF_MAX_MS 20000
#define RUN_STORE_RETRY_MS 200
#define RUN_STORE_RETRY_MAX_MS 10000
#define RUN_REFUSALS_MAX 5 /* not even its failure can be appended: then it is damaged */
#define RUN_DELTA_BYTES_MAX 2048
#define RUN_DELTA_DELAY_MS 25
#define RUN_HISTORY_MESSAGES_MAX 400
#define RUN_ARENA_BYTES_MAX (64u << 20)
#define RUN_OUTPUT_TOKENS_MIN 16
#define RUN_WIND_DOWN_TOKENS 1000 /* held back for a last call that sums up ... */
#define RUN_WIND_DOWN_PART 20     /* ... or this part of the smallest ceiling, whichever is less */
#define RUN_WIND_DOWN_MS 10000
#define RUN_LAST_TOKENS_MAX 8000 /* the last call takes, however much is left */
#define RUN_SAME_ACTION_WARN 5   /* in a row: the model is told */
#define RUN_SAME_ACTION_MAX 8    /* in a row: the run ends */
#define TOOL_DEADLINE_GRACE_MS 1000
#define TOOL_RESULT_BYTES_MAX (128u << 10)
#define MESSAGE_BYTES_MAX (4u << 20)
#define SESSION_FILE_COUNT_MAX 1000
#define SESSION_FILES_BYTES_MAX (1ull << 30)
#define APPROVAL_EXPIRY_MS_DEFAULT (7ll * 24 * 3600 * 1000)

/* agent */
#define TOOL_INPUT_BYTES_MAX (4u << 20)
#define TOOL_OUTPUT_BYTES_MAX (16u << 20)
#define TOOL_MEMORY_BYTES_MAX (2048ull << 20)
#define TOOL_TABLE_ELEMENTS_MAX 100000u
#define TOOL_TIME_MS_MAX (10ll * 60 * 1000)
#define TOOL_FUEL_MAX (1ull << 50)
#define TOOL_SCHEMA_BYTES_MAX (256u << 10)
#define TOOL_HOST_CALL_NAMES_MAX 32u
#define TOOL_MODULES_MAX 16u                   /* of one tool, chosen by a member of its input */
#define TOOL_COMPONENT_CORE_INSTANCES_MAX 200u /* a component of linked libraries has many */
#define TOOL_COMPONENT_MEMORIES_MAX 1u
#define TOOL_COMPONENT_TABLES_MAX 8u
#define TOOL_COMPONENT_POLLABLES_MAX 64u /* sleeps and waits that a guest keeps at a time */
#define TOOL_NAME_BYTES_MAX 64u
#define TOOL_DESCRIPTION_BYTES_MAX 4096u
#define PERMISSION_LIST_MAX 256u
#define MANIFEST_BYTES_MAX (512u << 10)
#define REGISTRY_TOOLS_MAX 4096u /* of all sources; about 2 KiB each beside schemas */
#define REGISTRY_SOURCES_MAX 64u
#define REGISTRY_STATES_MAX 8192u     /* tools that somebody decided something about */
#define REGISTRY_DEPRECATIONS_MAX 64u /* versions of one tool */
#define REGISTRY_VISIBLE_TENANTS_MAX 1000u
#define REGISTRY_TRUSTED_KEYS_MAX 32u
#define REGISTRY_TERMS_MAX 512u /* words of one tool that are searched */
#define REGISTRY_QUERY_TERMS_MAX 32u
#define REGISTRY_QUERY_BYTES_MAX 4096u /* of a message, for finding tools */
#define PACKAGE_FILES_MAX 18u          /* manifest, signature, modules */
#define PACKAGE_NAME_BYTES_MAX 99u     /* of a file in a package */
#define PACKAGE_BYTES_MAX (160u << 20)
#define PACKAGES_PER_TENANT_MAX 2000u
#define PACKAGE_PREPARE_MS (5ll * 60 * 1000) /* to write and compile one */
#define PACKAGE_SIGNATURE_BYTES_MAX 4096u
#define TOOL_TEXT_BYTES_MAX 500u /* why a version is deprecated */
#define REGISTRY_ERRORS_MAX 100u
#define SANDBOX_THREADS_MAX 64
#define SANDBOX_PARALLEL_DEFAULT 64
#define SANDBOX_PARALLEL_MAX 1024
#define SANDBOX_QUEUE_MAX 1024u /* calls that wait for their turn */
#define SANDBOX_TICK_MS 10      /* a guest that computes gives way this often */
#define SANDBOX_TOOLS_MAX 256u  /* loaded modules; the least recently used makes room */
#define SANDBOX_MODULE_BYTES_MAX (128u << 20)
#define SANDBOX_LOG_BYTES_MAX 4096u
#define SANDBOX_WASM_STACK_BYTES (2u << 20) /* JavaScript's own limit is reached before it */
#define SANDBOX_FIBER_STACK_BYTES                                                                  \
    (2560u << 10)                         /* the guest's stack and the host functions' above it */
#define SANDBOX_RESIDENT_BYTES (1u << 20) /* memory an idle instance slot keeps for the next call */
#define SANDBOX_HOST_CALLS_MAX 1024u      /* of one guest */
#define SANDBOX_HOST_CALL_BYTES_MAX (16u << 20) /* request or answer of one */
#define SANDBOX_HOST_CALL_NAME_BYTES_MAX 64u
#define SANDBOX_FILES_MAX 1000u /* session files visible to one call */
#define SANDBOX_FILE_READ_BYTES_MAX                                                                \
    (1u << 20) /* one file_read: longer ones are cut, so that a guest stays interruptible */
#define SANDBOX_RANDOM_BYTES_MAX (1u << 20)
#define SANDBOX_POLL_SUBSCRIPTIONS_MAX 32u
#define HOST_HTTP_HEADERS_MAX 64u
#define HOST_HTTP_BODY_BYTES_MAX (10u << 20)
#define SANDBOX_NOTEBOOKS_MAX 16u /* live interpreters of a node; each holds a slot of the pool */
#define SANDBOX_NOTEBOOKS_PER_TENANT_MAX 8u
#define SANDBOX_NOTEBOOKS_PER_SESSION_MAX 4u /* what an operator may allow; */
#define SANDBOX_NOTEBOOKS_PER_SESSION 2u     /* what is allowed otherwise */
#define SANDBOX_NOTEBOOK_MEMORY_BYTES (128u << 20)
#define SANDBOX_NOTEBOOK_IDLE_MS (15 * 60 * 1000)
#define SANDBOX_NOTEBOOK_IDLE_MS_MAX (24 * 60 * 60 * 1000)
#define SANDBOX_NOTEBOOK_LOOK_MS 1000 /* how often idle ones are looked for */
#define SANDBOX_NOTEBOOK_NAME_BYTES_MAX 64u
#define SANDBOX_CODE_FILES_MAX 10000u /* compiled modules that are looked through at a start */
#define SANDBOX_CODE_UNUSED_DAYS 30   /* compiled code that nobody loaded for so long is removed */
#define SANDBOX_LOAD_POLL_MS                                                                       \
    5 /* how often a call looks whether another one has loaded its module */
#define SANDBOX_BACKTRACE_FRAMES_MAX 48u /* innermost frames of a trap or a profile's sample */
#define SANDBOX_PROFILE_AFTER_MS 20  /* a guest with that much CPU time is sampled at each tick */
#define SANDBOX_PROFILE_SAMPLES 128u /* then every second tick, then every fourth, ... */
#define SANDBOX_PROFILE_FUNCTIONS_MAX 256u
#define SANDBOX_PROFILE_NODES_MAX 1024u
#define SANDBOX_PROFILE_BYTES_MAX (64u << 10) /* of one call, folded */
#define SANDBOX_TRAP_FRAMES_MAX 6u            /* function names in a trap's message */
#define PROFILE_NAME_BYTES_MAX 63u
#define PROFILE_DEPTH_MAX 64u
#define PROFILE_WEIGHT_MS_MAX (1ull << 40)
#define MONITOR_TOOLS_MAX 512u   /* versions of tools; the rest is counted as "other" */
#define MONITOR_PROFILES_MAX 64u /* tools whose calls are profiled; about 200 KiB each */
#define MONITOR_PROFILE_FUNCTIONS_MAX 1024u
#define MONITOR_PROFILE_NODES_MAX 4096u
#define MONITOR_PROFILE_TEXT_BYTES_MAX (1u << 20)
#define MONITOR_TOP_DEFAULT 20u
#define MONITOR_TOP_MAX 512u
#define SCHEMA_ERRORS_MAX 4u /* told about one input */

/* observe */
#define METRIC_SERIES_MAX 1000u /* of one family; the rest is "other" */
#define METRIC_LABEL_BYTES_MAX 128u

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

/* gateway */
#define GATEWAY_JSON_BODY_BYTES_MAX (4u << 20)
#define GATEWAY_CHAT_BODY_BYTES_MAX (16u << 20)
#define GATEWAY_JSON_DEPTH_MAX 32u
#define GATEWAY_REPLY_BYTES_MAX (64u << 20)
#define GATEWAY_REQUESTS_PER_MINUTE 6000
#define GATEWAY_STREAMS_PER_KEY 256u
#define GATEWAY_RATE_SLOTS 8192u /* users whose window is remembered */
#define GATEWAY_REQUEST_ID_BYTES_MAX 128u
#define GATEWAY_PAGE_DEFAULT 50
#define GATEWAY_IDEMPOTENCY_KEY_BYTES_MAX 255u
#define GATEWAY_IDEMPOTENCY_MS (24ll * 3600 * 1000)
#define GATEWAY_KEEP_ALIVE_MS 15000
#define GATEWAY_REAUTHORISE_MS                                                                     \
    3000 /* an open stream; with KEY_CACHE_MS under the 5 s that a revoked key may live */
#define GATEWAY_RUN_SLEEP_MS 600000 /* a run that sleeps no longer is waited for by who asked it */
#define GATEWAY_USAGE_ROWS_MAX 200000u /* ledger rows one usage report reads */
#define CALL_HELD_BYTES_MAX                                                                        \
    (32u << 10) /* of a stream before its first content: past it no other attempt can step in */
#define CALL_KEEP_MS 10000          /* to store an answer before its last event goes out */
#define CALL_HEDGES_MAX 1           /* further attempts beside a slow one */
#define CALL_TRAVEL_BYTES_MAX 4096u /* header fields of a caller that go on to an equal dialect */
#define KEY_CACHE_MS 1500
#define KEY_CACHE_SLOTS 4096u
#define KEY_MODELS_BYTES_MAX 2048 /* names that one key may ask for, together */
#define KEY_MODEL_NAME_BYTES_MAX 255
#define KEY_ROTATION_OVERLAP_S_MAX                                                                 \
    (7 * 24 * 3600)        /* the old text of a rotated key stays good at most */
#define KEY_BYTES_MAX 128u /* of a presented key */

/* llm and gateway: OpenAI Responses */
#define RESPONSES_OUTPUT_ITEMS_MAX 128 /* of one answer */
#define RESPONSES_HOSTED_TOOL_TOKENS                                                               \
    16384                            /* what a hosted tool may add to the input, in a reservation */
#define RESPONSES_FILE_TOKENS 131072 /* a file named by id or URL, in a reservation */
#define RESPONSES_CHAIN_MAX 512u     /* answers that one follow-up builds on */
#define RESPONSES_CHAIN_BYTES_MAX GATEWAY_CHAT_BODY_BYTES_MAX
#define RESPONSES_INPUT_BYTES_MAX (4u << 20)    /* of one turn, to be stored */
#define RESPONSES_DOCUMENT_BYTES_MAX (4u << 20) /* of one answer, to be stored */
#define RESPONSES_ID_BYTES_MAX 200u
#define RESPONSES_EXPIRY_MS (30ll * 24 * 3600 * 1000)
#define RESPONSES_KEEP_MS 10000   /* for the commit; a client that has gone does not end it */
#define RESPONSES_PURGE_EVERY 256 /* answers stored between two looks for expired ones */
#define RESPONSES_PURGE_ROWS 200u /* removed in one look */
#define RESPONSES_ITEMS_PAGE_MAX 100
#define RESPONSES_ITEMS_PAGE_DEFAULT 20
#define RESPONSES_FORWARD_MS 10000 /* for a provider to delete its copy */

/* gateway: MCP server */
#define MCP_SERVER_SESSIONS_MAX 16384u
#define MCP_SERVER_SESSIONS_PER_KEY 64u
#define MCP_SERVER_SESSION_IDLE_MS (30ll * 60 * 1000)
#define MCP_SERVER_CALLS_PER_SESSION 64u
#define MCP_SERVER_PAGE 100u         /* tools of one page */
#define MCP_SERVER_LIST_TTL_MS 30000 /* how long a client may take a list for fresh */
#define MCP_SERVER_LISTS_MS 500      /* lists are looked at for changes at most this often */
#define MCP_SERVER_POLL_MS 1000      /* an open stream looks for changes this often */
#define MCP_SERVER_RESOURCE_BYTES_MAX (4u << 20)
#define MCP_SERVER_HEADER_BYTES_MAX 4096u /* of Mcp-Name and Mcp-Param-*, decoded */
#define MCP_SERVER_EVENT_ID_BYTES_MAX 1024u
#define MCP_SERVER_STATE_MS                                                                        \
    (24ll * 3600 * 1000)             /* what a client brings back of a call that waits */
#define MCP_SERVER_DECISION_MS 20000 /* a retry waits so long for the decision it asked for */
#define MCP_SERVER_STATE_BYTES_MAX 1024u
#define MCP_SERVER_LINGER_MS 15000   /* for a client to come back for a run it began */
#define MCP_SERVER_APPROVALS_MAX 16u /* told of one run that waits */

/* orchestrator: containment */
#define CONTAINMENT_LINKS 64      /* pages opened by links that nobody named, in one context */
#define CONTAINMENT_APPROVALS 8   /* persons asked in one run, because of labels */
#define CONTAINMENT_TRACE_MAX 16u /* items of the context that a decision names */
#define CONTAINMENT_RULES_MAX 256u
#define CONTAINMENT_WORDS_MAX                                                                      \
    32 /* values of any kind in a call whose every word is a person's own */
#define CONTAINMENT_SCHEMA_DEPTH_MAX 8    /* of choices inside choices */
#define CONTAINMENT_SOURCE_BYTES_MAX 512u /* of the name of what a context item came from */
#define ANSWER_LINK_BYTES_MAX 4096u       /* of an address in an answer; a longer one is defused */

/* orchestrator: memory */
#define MEMORY_CONTENT_BYTES_MAX (32u << 10)
#define MEMORY_OWN_METADATA_BYTES_MAX (8u << 10) /* of the caller's */
#define MEMORY_QUERY_BYTES_MAX (8u << 10)
#define MEMORY_RESULTS_DEFAULT 10u
#define MEMORY_RESULTS_MAX 100u
#define MEMORY_SESSION_POINTS 10000u /* unless configured */
#define MEMORY_USER_POINTS 20000u    /* 120 MB of vectors of 1536 numbers: they fit the cache */
#define MEMORY_MODEL_BYTES_MAX 256u
#define MEMORY_CHECK_MS 10000 /* for a provider to tell its dimension at the start */

/* cli: tools in the making (nexus tool new, build, test, publish) */
#define TOOL_BUILD_FILE_BYTES_MAX (64u << 10)
#define TOOL_BUILD_COMMANDS_MAX 16u
#define TOOL_BUILD_WORDS_MAX 256u   /* of one command */
#define TOOL_BUILD_SOURCES_MAX 200u /* C files that the default recipe compiles */
#define TOOL_BUILD_MS_MAX 600000    /* of one command */
#define TOOL_TESTS_BYTES_MAX (4u << 20)
#define TOOL_TESTS_MAX 1000u
#define TOOL_TEST_CALLS_MAX 64u /* host calls, and files, of one test */
#define TOOL_TEST_DIFFERENCES_MAX 20u
#define TOOL_TEST_MS_MAX 120000 /* of one test */

/* workflow: definitions and expressions */
#define EXPRESSION_BYTES_MAX (16u << 10)
#define EXPRESSION_DEPTH_MAX 32u
#define EXPRESSION_STEPS_MAX 1000000u  /* of one evaluation; 64 bytes built are one too */
#define EXPRESSION_VALUE_DEPTH_MAX 48u /* of what is built: events put some levels around it */
#define EXPRESSION_VALUE_BYTES_MAX (4u << 20)
#define REGEX_BYTES_MAX 1000u /* of a pattern of matches() */
#define REGEX_DEPTH_MAX 32u   /* groups inside each other */
#define REGEX_REPEAT_MAX 1000 /* x{1000} */
#define REGEX_CODE_MAX 4096u  /* instructions of its program */
#define WORKFLOW_BYTES_MAX (1u << 20)
#define WORKFLOW_STEPS_MAX 1000u /* in one definition */
#define WORKFLOW_DEPTH_MAX 16u
#define WORKFLOW_PARALLEL_MAX 64 /* steps of one instance at work at once */
#define WORKFLOW_LOOP_MAX 10000
#define WORKFLOW_MAP_MAX 10000
#define WORKFLOW_RETRIES_MAX 100
#define WORKFLOW_PROBLEMS_MAX 100u
#define WORKFLOW_DURATION_MAX_MS (INT64_C(366) * 86400000)
#define WORKFLOW_QUORUM_MAX 20
#define ZONE_CHANGES_MAX 4096u
#define SCHEDULES_MAX 1000 /* of a tenant */
#define SCHEDULE_INPUT_BYTES_MAX (64u << 10)
#define SCHEDULE_GRACE_MS 60000 /* later than this is missed */
#define SCHEDULE_MISSED_MAX 100 /* of one schedule that are made up for */
#define SCHEDULE_LOOK_MAX 20000 /* occurrences counted in one turn */
#define SCHEDULE_SWEEP_MAX 100u
#define ZONE_BYTES_MAX (64u << 10)
#define WORKFLOW_OVERLOADS_MAX 50 /* attempts of one step that found no room on their node */
#define WORKFLOW_NODES_MAX                                                                         \
    100000u /* steps that one instance has begun, all attempts of all items and rounds */
#define WORKFLOW_TURN_BYTES                                                                        \
    (16u << 20) /* an instance lets its steps at work end before its memory passes this */
#define WORKFLOW_HOLD_MS 100 /* outcomes of pure steps wait so long for those after them ... */
#define WORKFLOW_HOLD_FOLLOWED_MS 25   /* ... or so long when somebody follows the instance */
#define WORKFLOW_LINGER_MS 2000        /* what comes within this time is waited for in memory */
#define WORKFLOW_CHILD_LINGER_MS 30000 /* ... and the end of a child run within this */
#define WORKFLOW_CACHE_MAX 256u        /* compiled definitions kept by a process */
#define WORKFLOW_OUTPUT_BYTES_MAX (1u << 20) /* of one step or instance */
#define WORKFLOW_WAKES_PAGE 200u             /* runs that one sweep wakes, a page at a time */
#define WORKFLOW_KEY_BYTES_MAX 255u          /* of an effect's key as a definition gives it */
#define WORKFLOW_SET_MAX 200u          /* definitions that ship or come from the configuration */
#define WORKFLOW_STEPS_SHOWN_MAX 2000u /* of one instance in one answer */
#define RUN_SIGNALS_MAX 10000u         /* taken by one run */
#define RUN_SIGNALS_WAITING_MAX 1000u  /* of one run, not taken */
#define RUN_SIGNAL_BYTES_MAX (64u << 10)

/* orchestrator: webhooks */
#define WEBHOOKS_MAX 1000 /* of a tenant */
#define WEBHOOK_NAME_BYTES_MAX 64
#define WEBHOOK_WINDOW_S 300              /* how far a signed time may be from ours */
#define WEBHOOK_SIGNATURES_MAX 8u         /* in one header field */
#define WEBHOOK_SIGNATURE_BYTES_MAX 2048u /* of that field */
#define WEBHOOK_ID_BYTES_MAX 256u
#define WEBHOOK_BODY_BYTES_MAX (256u << 10) /* of a request */
#define WEBHOOK_BODY_DEPTH_MAX 40u
#define WEBHOOK_RECEIPTS_MS (30ll * 86400000) /* a delivery that comes again is known that long */
#define WEBHOOK_OVERLAP_MS (86400000ll)       /* the secret before a change is good that long ... */
#define WEBHOOK_WEEK_MS                                                                            \
    (7ll * 86400000)              /* the longest overlap, the longest wait between attempts */
#define WEBHOOK_REFUSALS_MAX 256u /* webhooks whose refused requests are counted for one note */
#define WEBHOOK_NOTE_MS                                                                            \
    10000 /* between two notes of them, and between two counts of a full endpoint */
#define WEBHOOK_ENDPOINTS_MAX 20u /* of a tenant */
#define WEBHOOK_URL_BYTES_MAX 2048u
#define WEBHOOK_PENDING_MAX 10000 /* deliveries that wait for one endpoint */
#define WEBHOOK_EVENT_BYTES_MAX (16u << 10)
#define WEBHOOK_ANSWER_BYTES_MAX (256u << 10) /* of an answer that an endpoint asked for */
#define WEBHOOK_RETRIES_MAX 20
#define WEBHOOK_RETRY_AFTER_MS_MAX (86400000ll) /* a longer one is taken as this */
#define WEBHOOK_TIMEOUT_MS 15000
#define WEBHOOK_KEEP_MS WEBHOOK_WEEK_MS /* of deliveries that are over */
#define WEBHOOK_ROUND_MAX 32u           /* deliveries that one round looks at */
#define WEBHOOK_SENDS_MAX 4             /* to one endpoint at once */
#define WEBHOOK_ROUNDS_MAX 32u          /* endpoints at once, of a node ... */
#define WEBHOOK_TENANT_ROUNDS_MAX 8u    /* ... and of one tenant */
#define WEBHOOK_CLAIM_MS                                                                           \
    60000 /* beside the timeout: a node that claimed a delivery has lost it then */
#define WEBHOOK_LOOK_MS                                                                            \
    60000 /* without a reason an endpoint, and what is old, is looked at that often ... */
#define WEBHOOK_LOOK_SHARED_MS                                                                     \
    5000 /* ... where other nodes write deliveries too; and endpoints are loaded anew */
#define WEBHOOK_AWAITED_MS 10000  /* for the commit that an event is in */
#define WEBHOOK_LOOK_MANY_MS 1000 /* one with more than a page of deliveries that wait */
#define WEBHOOK_CLEAN_MAX 1000u   /* rows that one turn removes */
#define WEBHOOK_REDELIVER_MAX 1000

/* orchestrator: sessions */
#define SESSION_INBOX_MAX 32                         /* messages that wait in one session */
#define SESSION_INBOX_MESSAGE_BYTES_MAX (512u << 10) /* content and parts of one that waits */
#define SESSION_INBOX_ATTEMPTS_MAX 64                /* of one message, while others come and go */
#define SESSION_COPY_MESSAGES_MAX 100000u            /* of one clone or import */
#define SESSION_DOCUMENT_BYTES_MAX (16u << 20) /* of one import, as the command line reads it */
#define SESSION_EXPIRE_MAX 1000u               /* sessions of one look */
#define CONTEXT_FULL_PERCENT 80 /* of a model's window: then old messages are summarised ... */
#define CONTEXT_KEPT_PERCENT 40 /* ... and the newest that fit into so much stay */
#define CONTEXT_MESSAGES_MAX                                                                       \
    300u /* of one prompt, whatever the window; less than RUN_HISTORY_MESSAGES_MAX */
#define CONTEXT_KEPT_MESSAGES 60u /* of these */
#define CONTEXT_SUMMARY_BYTES_MAX (8u << 10)
#define CONTEXT_SUMMARY_BYTES_MIN 512
#define CONTEXT_SUMMARY_TOKENS_MAX 1024
#define CONTEXT_TRANSCRIPT_BYTES_MAX (256u << 10) /* of what a model is given to summarise */
#define CONTEXT_RESULT_BYTES_MIN 1024u            /* a tool's result is not cut below this */

/* orchestrator: newest events of a followed run, in memory */
#define JOURNAL_TAIL_EVENTS 32
#define JOURNAL_TAIL_BYTES (256u << 10)

/* orchestrator: child runs */
#define RUN_CHILD_DEPTH_MAX 4
#define RUN_CHILDREN_LIVE_MAX 256  /* of one run, alive at once */
#define RUN_CHILDREN_MAX 100000    /* of one workflow instance in all its life */
#define RUN_AGENT_CHILDREN_MAX 256 /* the same of an agent's run: its model has lost its way */
#define RUN_CHILD_LOOK_MS 1000     /* a run that ends looks at its children again */
#define RUN_CHILD_LINGER_MS 1000 /* a run waits so long for its children before it leaves memory */
#define RUN_LOADS_MAX 256        /* of one lane at once; more wait for their turn */
#define RUN_RECOVERY_PARALLEL 16 /* runs that a start looks at at once */
#define RUN_AGENTS_MAX 64u       /* other agents that one agent may call */

/* orchestrator: journal, replay, fork, retention, backtest */
#define RUN_FORK_DEPTH_MAX 16                  /* runs behind a fork */
#define POLICY_ARGUMENTS_BYTES_MAX (16u << 10) /* of a guest's refused call, in its event */
#define RUN_EXPORT_BYTES_MAX (64u << 20)
#define RUN_EXPORT_EVENTS_MAX 200000u
#define RUN_EXPORT_MESSAGES_MAX 20000u    /* of the session, the newest ones */
#define RUN_REPLAY_SWITCHES_MAX 50000000u /* of coroutines: a replay that does not end is stopped */
#define RUN_REPLAY_RESUMES_MAX 1000u
#define RUN_REPLAY_DIFFERENCES_MAX 50u
#define RUN_ENVIRONMENT_BYTES_MAX (8u << 20)
#define RUN_ENVIRONMENT_CACHE 16u /* of one loop */
#define RETENTION_DELTAS_MS (60ll * 60 * 1000)
#define RETENTION_ATTEMPTS_PER_RUN 1000u
#define RETENTION_BATCHES_PER_RUN 200
#define RETENTION_RUNS_PER_SWEEP 50u
#define RETENTION_ROWS_PER_BATCH 500u
#define BACKTEST_BYTES_MAX (4u << 20) /* of a policy, price list or filter that is tried */
#define BACKTEST_EXAMPLES_MAX 20u
#define BACKTEST_GROUPS_MAX 2000u
#define BACKTEST_DAYS_MAX 366
#define SCRATCH_FILES_MAX 64 /* of a scratch folder */
#define SCRATCH_NAME_BYTES_MAX 100
#define SCRATCH_BYTES_MAX (8u << 20)

/* resilience */
#define GUARD_ENTRIES_MAX 512u /* tools and MCP servers with places of their own */
#define GUARD_PLACES                                                                               \
    48 /* calls of one tool at once: some of the sandbox's are always left to others */
#define GUARD_SERVER_PLACES 64 /* of one MCP server */
#define GUARD_PLACES_MAX 4096
#define GUARD_QUEUE_MAX 1024
#define GUARD_WAIT_MS 30000
#define ADMISSION_PLACES 2048u /* runs at work at once */
#define ADMISSION_PLACES_MAX 30000u
#define ADMISSION_QUEUE_MAX 100000u
#define ADMISSION_RETRY_MS 5000
#define DEGRADE_STEPS_MAX 16   /* of one agent */
#define DEGRADE_BUDGET_PART 10 /* less than this part of a session's budget is little */
#define DEGRADE_CACHED_MS (24ll * 3600 * 1000)
#define DEGRADE_CACHED_RUNS 50u /* earlier runs looked at for an answer */
#define OVERLOAD_RETRY_MS 1000  /* the least urgent come back last */
#define STORE_LOAD_IDLE_MS 2000 /* without a commit for so long: the store has no load */
#define STORE_FAULT_SLOW_MS 300 /* what the fault point store.slow adds to a commit */
#define PROVIDER_PLACES_MAX 1000000
#define PROVIDER_QUEUE_MAX 1024    /* calls that wait for a place of one provider */
#define PROVIDER_QUEUE_MOST 100000 /* as it may be configured */
#define PROVIDER_WAIT_MS 30000

/* approvals */
#define APPROVAL_QUORUM_MAX 16
#define APPROVAL_APPROVERS_MAX 100u /* users, and roles, in one list */
#define APPROVAL_APPROVER_LISTS_MAX 8u
#define APPROVAL_APPROVERS_BYTES_MAX (64u << 10)
#define APPROVAL_RULES_MAX 32u /* that the policy gives for one call */
#define APPROVAL_PERSON_BYTES_MAX 255u
#define APPROVAL_PERSONS_MAX 64u     /* behind one vote */
#define APPROVAL_VOTES_MAX 64u       /* on one approval */
#define APPROVAL_VOTE_ATTEMPTS 16    /* of one vote against others at the same moment */
#define APPROVAL_KEYS_MAX 1000u      /* of one person, looked at for what they may do */
#define APPROVAL_DELEGATIONS_MAX 64u /* to one person, looked at for one vote */
#define APPROVAL_DELEGATION_MS_MAX (90ll * 24 * 3600 * 1000)
#define APPROVAL_REASON_BYTES_MAX 4096u
#define APPROVALS_LOOK_MS 600000LL /* all that wait are looked at, known due or not */
#define APPROVAL_REMINDERS_MAX 10  /* of one approval */
#define APPROVAL_REMIND_SWEEP_MAX 1000u
#define APPROVAL_TIME_MS_MIN 1000
#define APPROVAL_EXPIRES_MS_MAX (3660ll * 24 * 3600 * 1000)
#define KEY_MINTERS_MAX 32u /* persons through whose hands a key came */

/* orchestrator: nodes of a shared store */
#define NODE_BEAT_MS 2000
#define NODE_LATE_MS 10000    /* without a beat: taken for dead */
#define NODE_ORPHANS_MS 30000 /* how often a node looks for runs that nobody has */
#define NODES_MAX 256u        /* whose beats are remembered */
#define NODE_WAITING_RUNS 50  /* looked at in one turn */

#endif
