#include "orchestrator/journal/run_state.h"

static const char *const status_names[] = {
    [RUN_PENDING] = "pending",     [RUN_RUNNING] = "running", [RUN_WAITING] = "waiting",
    [RUN_COMPLETED] = "completed", [RUN_FAILED] = "failed",   [RUN_CANCELLED] = "cancelled",
};

const char *run_status_name(enum run_status status)
{
    return status_names[status];
}

bool run_status_parse(str text, enum run_status *out)
{
    for (size_t i = 0; i < ARRAY_COUNT(status_names); i++) {
        if (!str_equal(text, str_from_cstr(status_names[i])))
            continue;
        *out = (enum run_status) i;
        return true;
    }
    return false;
}

bool run_status_is_final(enum run_status status)
{
    return status == RUN_COMPLETED || status == RUN_FAILED || status == RUN_CANCELLED;
}
