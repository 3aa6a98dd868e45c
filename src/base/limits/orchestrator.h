/* Bounds of runs, sessions, budgets, workflows, webhooks; by way of base/limits.h. */
#ifndef NEXUS_BASE_LIMITS_ORCHESTRATOR_H
#define NEXUS_BASE_LIMITS_ORCHESTRATOR_H

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

/* workflow: definitions and expressions */
#define EXPRESSION_BYTES_MAX (16u << 10)
#define EXPRESSION_DEPTH_MAX 32u
#define EXPRESSION_STEPS_MAX 1000000u  /* of one evaluation; 64 bytes built are one too */
#define EXPRESSION_VALUE_DEPTH_MAX 48u /* of what is built: events put some levels around it */
#define EXPRESSION_VALUE_BYTES_MAX (4u << 20)
#define REGEX_BYTES_MAX 1000u /* of a pattern of matches() */
#define REGEX_DEPTH_MAX 160u  /* groups, sets, repetitions, lists and choices inside each other */
#define REGEX_PARTS_MAX 4096u /* characters, sets and places, repetitions written out */
#define REGEX_PROGRAM_BYTES_MAX (1u << 20) /* of each automaton: 5 ms to build */
#define WORKFLOW_BYTES_MAX (1u << 20)
#define WORKFLOW_STEPS_MAX 1000u /* in one definition */
#define WORKFLOW_DEPTH_MAX 16u
#define WORKFLOW_PARALLEL_MAX 64 /* steps of one instance at work at once */
#define WORKFLOW_LOOP_MAX 10000
#define WORKFLOW_MAP_MAX 10000
#define WORKFLOW_RETRIES_MAX 100
#define WORKFLOW_PROBLEMS_MAX 100u
#define WORKFLOW_DURATION_MAX_MS (INT64_C(366) * 86400000)
#define WORKFLOW_QUORUM_MAX 16
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
#define WORKFLOW_OUTPUT_BYTES_MAX (1u << 20)    /* of one step or instance */
#define WORKFLOW_SESSION_MESSAGES_MAX 100       /* that `session.messages` has ... */
#define WORKFLOW_SESSION_BYTES_MAX (256u << 10) /* ... and of their texts together */
#define WORKFLOW_WAKES_PAGE 200u                /* runs that one sweep wakes, a page at a time */
#define WORKFLOW_KEY_BYTES_MAX 255u             /* of an effect's key as a definition gives it */
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
#define JOURNAL_MENDS_MAX 8 /* how often one batch is brought up to date and committed again */
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
#define RUN_BELOW_PARENTS_MAX 1000u /* runs looked into for what stands below a run ... */
#define RUN_BELOW_ROWS_MAX 10000u   /* ... and rows read for it; the last page may go past it */
#define RUN_WAITS_MAX 64u           /* approvals told of one run and those below it */

/* orchestrator: journal, replay, fork, retention, backtest */
#define RUN_FORK_DEPTH_MAX 16                  /* runs behind a fork */
#define POLICY_ARGUMENTS_BYTES_MAX (16u << 10) /* of a guest's refused call, in its event */
#define RUN_EXPORT_BYTES_MAX (64u << 20)
#define RUN_EXPORT_EVENTS_MAX 200000u
#define RUN_EXPORT_MESSAGES_MAX 20000u    /* of the session, the newest ones */
#define RUN_REPLAY_SWITCHES_MAX 50000000u /* of coroutines: a replay that does not end is stopped */
#define RUN_REPLAY_QUIET_MAX 50000u       /* so many of them without an event: it will not end */
#define RUN_REPLAY_LOADS_MAX 32u /* places tried at which a run may have been loaded again */
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
#define GUARD_PLACES 48        /* calls of one tool at once: the sandbox has more, for others */
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
#define STORE_SETTLE_MS                                                                            \
    3000                    /* without a failure, before a store that failed counts as well again */
#define STORE_PROBE_MS 1000 /* how often a store that cannot commit is tried */
#define STORE_PROBE_BYTES 65536 /* what is written then: room for less is no room */
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
#define NODE_NEWS_NEWEST 16   /* signals and messages of one that are looked at */
#define NODE_NEWS_RUNS_MAX 10000u

#endif
