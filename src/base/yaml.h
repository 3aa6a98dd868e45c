/*
 * YAML: one document to a JSON tree, remembering the line of every value.  The one door to libyaml
 * (yaml.c).
 *
 * YAML 1.1 as libyaml reads it, with JSON's data model: plain scalars become null, booleans
 * (true/false only), integers, reals or
 * strings (YAML 1.2 core schema: `yes`, `on` stay strings); anchors and aliases work within a
 * bound, merge keys and tags do not;
 * duplicate keys, several documents and depth past JSON_DEPTH_MAX are refused.
 * Errors name file, line and column, and the mend where there is one.
 */
#ifndef NEXUS_BASE_YAML_H
#define NEXUS_BASE_YAML_H

#include "base/json.h"

struct yaml_document {
    str file;                /* as given, for messages */
    const struct json *root; /* on the arena */
    const struct yaml_location *locations;
    size_t location_count;
};

/* `file` is only a name for messages.  REASON_CONFIG: "file:line:column: what; remedy". */
must_check bool yaml_parse(struct arena *arena, str file, str text, struct yaml_document *out,
                           struct error *e);
/* A JSON text instead, which json_parse has read whole: the lines of its values.  REASON_TOO_LARGE past YAML_VALUES_MAX values. */
must_check bool yaml_of_json(struct arena *arena, str file, str text, const struct json *root,
                             struct yaml_document *out, struct error *e);
/* Line (from 1) of a value of this document; 0 when it is none of it. */
int yaml_line(const struct yaml_document *document, const struct json *value);
/* Line of the key that holds it, for what is said of the member as a whole; of an item of a list: its own. */
int yaml_key_line(const struct yaml_document *document, const struct json *value);
/* Fills e with REASON_CONFIG and "file:line: message".  Returns false. */
bool yaml_error(const struct yaml_document *document, const struct json *value, struct error *e,
                const char *format, ...) format_like(4, 5);

#endif
