/*
 * Rows as JSON: what an export holds of the record store.
 *
 * One object per row, columns by their names; UUIDs and texts are strings, numbers and times integers, JSON columns the JSON itself;
 * null columns are left out.  The tenant is not among them: whoever reads a row decides whose it is.
 * Pure.
 */
#ifndef NEXUS_ORCHESTRATOR_ROW_JSON_H
#define NEXUS_ORCHESTRATOR_ROW_JSON_H

#include "base/json.h"
#include "store/record.h"

void row_write_json(struct json_writer *w, const struct record *row);
/* Texts lie on the arena or in the tree.  Unknown members are left out, a wrong type is INVALID. */
must_check bool row_read_json(struct arena *arena, enum table table, const struct json *json,
                              struct record *out, struct error *e);

#endif
