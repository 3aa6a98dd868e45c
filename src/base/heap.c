#include "base/heap.h"

#include <malloc.h>
#include <stdbool.h>
#include <stddef.h>

/* jemalloc's, where the program is linked with it. */
int mallctl(const char *name, void *old_value, size_t *old_bytes, void *new_value, size_t new_bytes)
    __attribute__((weak));

void heap_start(void)
{
    bool is_on = true;
    if (mallctl)
        (void) mallctl("background_thread", NULL, NULL, &is_on, sizeof is_on);
}

void heap_rest(void)
{
    if (mallctl)
        (void) mallctl("thread.tcache.flush", NULL, NULL, NULL, 0);
}

void heap_give_back(void)
{
    if (!mallctl) {
        malloc_trim(0);
        return;
    }
    heap_rest();
    (void) mallctl("arena.4096.purge", NULL, NULL, NULL, 0); /* 4096: all of them */
}
