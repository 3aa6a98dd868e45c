/*
 * Acts: what people do in a seed beside the users, the approver and the plain callers of actors.c.  Which acts a seed has is drawn from it.
 *
 * Two sorts of people: those who have something to do and end, and servants (approvers, heralds) who stay until nobody else is there and
 * every run has ended.  Whoever asks for something may never hear whether it was done; so nobody counts on being the one who goes on.
 */
#ifndef NEXUS_TESTS_SIM_ACTS_H
#define NEXUS_TESTS_SIM_ACTS_H

#include "people.h"

enum act {
    ACT_INSTANCES, /* act_instances.c: workflows, signals */
    ACT_CHATS,     /* act_chats.c: double text, pause, clone, fork */
    ACT_SCHEDULES, /* act_schedules.c */
    ACT_BOARD,     /* act_board.c: quorum, delegation, racing votes */
    ACT_CLIENTS,   /* act_clients.c: tools that callers run themselves */
    ACT_REPLAYS,   /* act_replays.c: what has ended is run again from its record */
    ACT_WEBHOOKS,  /* act_webhooks.c: endpoints that are told */
    ACT_COUNT
};

enum { CHATS = 2, CHAT_MESSAGES = 6, FOLLOWED = 6, REPLAYS = 2 };
enum { HOOK_RETRIES = 3, HOOK_RETRY_AFTER_MS = 9000 };

/* What holds for a whole seed. */
struct rules {
    bool acts[ACT_COUNT];
    bool has_users;   /* those of actors.c */
    bool has_shipped; /* workflows */
    bool has_day;     /* the user's budget is one of a day */
    int64_t quorum;   /* of what needs approval; 0: one person, not said */
    int64_t expiry_ms, approval_expiry_ms, approval_remind_ms, runs_ms, deltas_ms;
};

/* A message that was sent. */
struct said {
    str content;
    enum double_text mode;
    enum message_fate fate;
    uuid otherwise_run_id;     /* MESSAGE_STEERS: its own, if it comes to that */
    bool is_heard;             /* the answer came */
    bool is_taken, is_refused; /* ... and said so */
    bool is_withdrawn;         /* its run was cancelled */
    /* as the session has it */
    int times, order;
    bool was_withdrawn;
};
struct chat {
    uuid session_id;
    enum double_text mode;
    struct said said[CHAT_MESSAGES];
    int count, order;
};

/* A run that was exported. */
struct replayed {
    uuid run_id;
    str text;
    bool is_workflow;
};

struct stage {
    struct rules rules;
    struct chat chats[CHATS];
    struct {
        uuid run_id;
    } followed[FOLLOWED]; /* by whom of this index */
    int followed_count;
    struct replayed replays[REPLAYS];
    int replay_count;
    int64_t hook_made_us[HOOKS]; /* true time at which its row was stored; 0: not yet */
    bool is_hook_kept;           /* somebody looks after the endpoints */
    int definition_count;
    int voting; /* at this moment */
};

void acts_draw(struct world *world);  /* when the world is made */
void acts_start(struct world *world); /* when its limits are set */

/* A servant goes on. */
bool person_is_needed(const struct person *person);
void servant_start(struct world *world, const char *name, person_fn *fn, int index);
/* Somebody follows this run to its end, perhaps. */
void acts_follow(struct world *world, uuid run_id);
struct principal person_principal(const struct world *world, const char *name);

void act_instances(struct world *world);
void act_chats(struct world *world);
void act_schedules(struct world *world);
void act_board(struct world *world);
void act_clients(struct world *world);
void act_webhooks(struct world *world);
void act_replays(struct world *world);
void replays_play(struct world *world); /* at rest, outside all coroutines */
/* act_webhooks.c: endpoints, by their index */
const struct webhook_options *hook_options(struct node *node); /* NULL: none in this seed */
uuid hook_tenant(const struct world *world, int index);
const char *hook_name(int index);
int64_t hook_wait_ms(int attempt); /* after that attempt, from 1 */
person_fn follower, approver;      /* act_followers.c, actors.c */

/* company.c: agents and models that they work with */
struct agent_set *company_agents(void);
void company_models(struct node *node, struct catalog *catalog);
struct workflow_set *company_workflows(const struct world *world); /* NULL: none */
str company_agent(struct world *world);                            /* one to begin a session with */

#endif
