#include "base/fault.h"

#ifdef NEXUS_FAULTS

#include "base/ensure.h"
#include "base/limits.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>

enum { POINT_NAME_BYTES = 64 };

struct point {
    char name[POINT_NAME_BYTES];
    uint64_t passes_left; /* fires when this becomes 0; EACH_TIME fires at each pass */
    bool kills;
};
#define EACH_TIME UINT64_MAX

static struct point points[FAULT_POINTS_MAX];
static _Atomic size_t
    point_count; /* read without the lock: with nothing armed a point costs one load */
static _Atomic bool is_traced;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/*
 * A specification that cannot be read must not pass for "nothing armed": the test would prove
 * nothing.
 */
noreturn_function static void refuse(str entry)
{
    fprintf(stderr, "fault point \"" STR_FMT "\": expected name[:count or *][:kill]\n",
            STR_ARG(entry));
    ensure_failed("a readable fault specification", __FILE__, __LINE__);
}

static struct point parse_point(str entry)
{
    struct point point = {.passes_left = 1};
    str name, count, rest;
    str_cut(entry, ':', &name, &rest);
    str_cut(rest, ':', &count, &rest);
    if (str_equal(count, S("kill")) && str_is_empty(rest)) {
        rest = count;
        count = STR_NONE;
    }
    point.kills = str_equal(rest, S("kill"));
    if (name.len == 0 || name.len >= POINT_NAME_BYTES || (rest.len > 0 && !point.kills))
        refuse(entry);
    if (str_equal(count, S("*")))
        point.passes_left = EACH_TIME;
    else if (count.len > 0 && (!str_to_u64(count, &point.passes_left) || point.passes_left == 0))
        refuse(entry);
    memcpy(point.name, name.ptr, name.len);
    return point;
}

void fault_arm(str specification)
{
    str entry;
    pthread_mutex_lock(&lock);
    size_t count = 0;
    is_traced = false;
    while (str_next(&specification, ',', &entry)) {
        entry = str_trim(entry);
        if (str_is_empty(entry))
            continue;
        if (str_equal(entry, S("trace"))) {
            is_traced = true;
            continue;
        }
        ensure(count < FAULT_POINTS_MAX);
        points[count++] = parse_point(entry);
    }
    point_count = count;
    pthread_mutex_unlock(&lock);
}

static bool pass(struct point *point)
{
    if (point->passes_left == 0) /* has fired */
        return false;
    if (point->passes_left != EACH_TIME && --point->passes_left > 0)
        return false;
    if (point->kills)
        raise(SIGKILL);
    return true;
}

bool fault_fires(const char *name)
{
    bool fires = false;
    if (is_traced)
        fprintf(stderr, "fault point %s\n", name);
    if (likely(point_count == 0))
        return false;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < point_count; i++) {
        if (strcmp(points[i].name, name) == 0 && pass(&points[i]))
            fires = true;
    }
    pthread_mutex_unlock(&lock);
    return fires;
}

#endif
