/*
 * Filter bank: the content filters of a configuration, compiled.
 *
 * Compiling takes up to a second, so a reload that changes no filter keeps the bank.  It is counted by reference because snapshots of
 * the settings end in any order: each catalog whose models point into it holds one, and so does whoever keeps it between reloads.
 * Immutable once made.  Thread: any.
 */
#ifndef NEXUS_CLI_FILTER_BANK_H
#define NEXUS_CLI_FILTER_BANK_H

#include "cli/config/config.h"
#include "llm/guard.h"

struct filter_bank;

/* One reference.  *kept (or kept itself) may be NULL: then it is made, and kept. */
must_check bool filter_bank_take(struct filter_bank **kept, const struct config *config,
                                 struct metrics *metrics, struct filter_bank **out,
                                 struct error *e);
void filter_bank_release(struct filter_bank *bank); /* NULL is fine */
void filter_bank_drop(void *bank);                  /* the same, for catalog_keep */
/* NULL for the empty name. */
const struct guard_rules *filter_bank_find(const struct filter_bank *bank, str name);

#endif
