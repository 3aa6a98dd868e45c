/*
 * Commit meter: how long a back end's commits take, for store_load.
 *
 *      began = now; commit_meter_begin(&meter, began);  ... commit ...  commit_meter_end(&meter, began, now)
 *
 * What is shown is the average of the newest ones, half of it the very newest; or the age of what is being committed, if that is more:
 * a disk that hangs shows at once.  After STORE_LOAD_IDLE_MS without a commit nothing is held against the disk any more.
 * Thread: any; atomics only.
 */
#ifndef NEXUS_STORE_COMMIT_METER_H
#define NEXUS_STORE_COMMIT_METER_H

#include <stdatomic.h>
#include <stdint.h>

struct commit_meter { /* all zero: nothing yet */
    _Atomic int64_t running, busy_since_ns, ended_ns, commit_ns;
};
void commit_meter_begin(struct commit_meter *meter, int64_t now_ns);
void commit_meter_end(struct commit_meter *meter, int64_t began_ns, int64_t now_ns);
int64_t commit_meter_us(struct commit_meter *meter, int64_t now_ns);

#endif
