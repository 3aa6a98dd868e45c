/*
 * Testkit: an orchestrator over parts that do what a test tells them.
 *
 *      struct testkit *kit = testkit_create();
 *      testkit_reply(kit, (struct fake_reply){.calls = {{"lookup", "{}"}}, .call_count = 1});
 *      testkit_do(kit, body, argument);        body runs on a coroutine; returns when everything has come to rest
 *      testkit_crash(kit);                     what the store committed survives, all else is forgotten
 *      testkit_destroy(kit);
 *
 * Time is simulated: it stands still while anything can run and then jumps to the next timer.  testkit_create_on_loop gives the same
 * on a real loop with the blocking pool, for what touches files.
 *
 * Provider: plays the replies in the order they were added, then answers "done".  Executor: each tool does what its fake_tool says.
 * Policy: allows everything but what `denied` names; category system needs another person.
 * Tools: lookup (pure), pay (effect), notify (idempotent effect), wipe (category system, effect).
 */
#ifndef NEXUS_ORCHESTRATOR_ORCHESTRATOR_TESTKIT_H
#define NEXUS_ORCHESTRATOR_ORCHESTRATOR_TESTKIT_H

#include "llm/router.h"
#include "orchestrator/orchestrator.h"
#include "runtime/loop.h"
#include "runtime/simulated.h"
#include "store/memory.h"

enum { FAKE_CALLS_MAX = 20, FAKE_REPLIES_MAX = 32, FAKE_TOOLS = 4 };

struct fake_call {
    const char *name, *arguments;
};
struct fake_reply {
    const struct delta *deltas; /* first of all, as they are; they must outlive the stream */
    int delta_count;
    const char *text; /* NULL: no text when there are calls or deltas, else "done" */
    struct fake_call calls[FAKE_CALLS_MAX];
    int call_count;
    int64_t delay_ms;          /* before the stream opens */
    int64_t pause_ms;          /* before each piece */
    enum error_reason refusal; /* instead of a stream; NONE: none */
    int64_t retry_after_ms;    /* of the refusal */
    enum error_reason cut;     /* after the first piece */
    struct usage usage;        /* is_reported false: the provider is silent about it */
};
struct fake_tool {
    const char *name;
    int64_t delay_ms, after_ms; /* before the effect happens, and until the answer arrives */
    enum error_reason failure;  /* told after the effect happened */
    const char *output;
    const char *calls[3]; /* tools that it calls with {} before its effect, one after the other */
    int begun, effects;   /* counted */
    char heard[200];      /* the answer to its last call, or the refusal */
};

struct testkit {
    struct clock *clock;
    struct random *random;
    struct store *store;
    struct registry *registry;
    struct arena *arena;
    struct settings
        defaults; /* what each incarnation's settings begin with; catalog and agents are made anew */
    const struct agent_definition
        *agents; /* added from the next incarnation on; one may be named `assistant` */
    size_t agent_count;
    const struct webhook_options *webhooks; /* from the next incarnation on; NULL: none */
    bool is_shared;                         /* the same */
    const struct guard_rules
        *guard;                 /* of the model "fake", from the next incarnation on; NULL: none */
    int64_t context_tokens_max; /* window of the models, from the next incarnation on; 0: unknown */
    uuid tenant_id, other_tenant_id;
    int incarnation;
    char node[16], data_dir[64];

    struct loop *loop; /* NULL: simulated */
    struct scheduler *scheduler;
    struct lane lane;
    struct orchestrator *o;
    struct metrics *metrics;
    struct router *router;

    struct fake_provider *provider, *fallback;
    struct fake_executor *executor;
    struct fake_policy *policy;
    struct fake_reply replies[FAKE_REPLIES_MAX];
    int reply_count, reply_next;
    struct fake_tool tools[FAKE_TOOLS];

    void (*on_prompt)(struct testkit *kit,
                      const struct prompt *prompt); /* each one sent; or NULL */

    /* what the parts have seen, on `arena` */
    int model_calls, fallback_calls, decisions;
    size_t prompt_messages, prompt_tools;
    str prompt_last;        /* text of the last message of the newest prompt */
    str prompt_last_result; /* of the last tool result in it */
    int64_t prompt_max_output_tokens;
    str tool_input, tool_user, tool_effect_key;
    size_t tool_files;
    str denied[4]; /* actions or tools that the policy denies */
    str policy_role, policy_user;
    str approval_rules; /* what the policy demands of approvals: JSON, or empty */
};

struct testkit *testkit_create(void);
struct testkit *testkit_create_on_loop(void);
void testkit_destroy(struct testkit *kit);

/*
 * A test program's main: each case gets a kit of its own.  `body` runs on a coroutine; `script` outside, for what crashes or is looked
 * at while it moves; `is_on_loop`: a real loop.  NEXUS_TEST="test_a_*" in the environment runs only those.
 */
struct testkit_case {
    const char *name;
    void (*body)(struct testkit *kit, struct context *ctx);
    void (*script)(struct testkit *kit);
    bool is_on_loop;
};
#define TESTKIT_BODY(fn)                                                                           \
    {                                                                                              \
        .name = #fn, .body = fn                                                                    \
    }
#define TESTKIT_LOOP_BODY(fn)                                                                      \
    {                                                                                              \
        .name = #fn, .body = fn, .is_on_loop = true                                                \
    }
#define TESTKIT_SCRIPT(fn)                                                                         \
    {                                                                                              \
        .name = #fn, .script = fn                                                                  \
    }
int testkit_main(const struct testkit_case *cases, size_t count);

/* Runs body on a coroutine until it has returned and (simulated) nothing moves any more. */
void testkit_do(struct testkit *kit, void (*body)(struct context *ctx, void *argument),
                void *argument);
/* Simulated only: moves time on by this much. */
void testkit_run_ms(struct testkit *kit, int64_t ms);
/* Simulated only: starts body and comes back at once; testkit_run_ms moves it. */
void testkit_begin(struct testkit *kit, void (*body)(struct context *ctx, void *argument),
                   void *argument);
/* Simulated only: the node dies and starts again, with recovery.  What is alive is thrown away with its store's copy. */
void testkit_crash(struct testkit *kit);
/* The same without recovery: nothing goes on by itself. */
void testkit_crash_only(struct testkit *kit);

void testkit_reply(struct testkit *kit, struct fake_reply reply);
struct fake_tool *testkit_tool(struct testkit *kit, const char *name);

struct principal testkit_principal(const struct testkit *kit, const char *user,
                                   enum role_level level);
/* A session of its own with this budget (COST_LIMITLESS: the defaults). */
uuid testkit_session(struct testkit *kit, struct context *ctx, const struct principal *principal,
                     cost budget);
uuid testkit_start(struct testkit *kit, struct context *ctx, const struct principal *principal,
                   uuid session_id, const char *content);
struct record testkit_run(struct testkit *kit, struct context *ctx, uuid run_id);
str testkit_status(struct testkit *kit, struct context *ctx, uuid run_id);
/* The types of a run's events joined by a space, deltas left out; checks that numbers have no gap and that it folds. */
str testkit_history(struct testkit *kit, struct context *ctx, uuid run_id);
/* The newest event of a type; fails the test when there is none. */
const struct json *testkit_event(struct testkit *kit, struct context *ctx, uuid run_id,
                                 enum event_type type);
/* spent = sum of entries for every account, and nothing is reserved: what must hold at rest. */
void testkit_check_ledger(struct testkit *kit, struct context *ctx, uuid session_id);

#endif
