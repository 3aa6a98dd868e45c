/* Bounds of tools, their sandboxes, MCP; by way of base/limits.h. */
#ifndef NEXUS_BASE_LIMITS_AGENT_H
#define NEXUS_BASE_LIMITS_AGENT_H

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

#endif
