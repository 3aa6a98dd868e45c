/* Bounds of what clients send, keys, the command line; by way of base/limits.h. */
#ifndef NEXUS_BASE_LIMITS_GATEWAY_H
#define NEXUS_BASE_LIMITS_GATEWAY_H

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

#endif
