/*
 * Permissions: what a tool may touch.  YAML letter for letter as spec section 4.
 *
 * Deny by default: an absent list allows nothing.  Effective = manifest ∩ configuration; a narrower list wins.
 * A list that the manifest leaves out or empty is the operator's to fill; one that the operator leaves out is the manifest's; an
 * empty list of the operator's allows nothing.  (items is NULL in a list that was left out.)
 */
#ifndef NEXUS_AGENT_PERMISSIONS_H
#define NEXUS_AGENT_PERMISSIONS_H

#include "base/yaml.h"

struct str_list {
    str *items;
    size_t count;
};
struct permissions {
    struct {
        bool is_set;
        struct str_list allowed_hosts, blocked_ips,
            allowed_ips; /* allowed_ips: the operator's own exceptions (tests, intranet) */
        int64_t max_response_bytes;
        int64_t timeout_ms;
    } network;
    struct {
        bool is_set;
        struct str_list read, write, execute;
    } paths;
    int64_t max_file_bytes; /* 0: not set */
    struct str_list allowed_extensions;
    struct str_list languages;
    int64_t max_cpu_time_ms;  /* 0: not set */
    int64_t max_memory_bytes; /* 0: not set */
    bool network_access, is_network_access_set;
};

/* Reads `permissions:`; unknown members and wrong forms are errors with file and line. */
must_check bool permissions_read(struct arena *arena, const struct yaml_document *document,
                                 const struct json *value, struct permissions *out,
                                 struct error *e);
/* The same for a document that may only narrow (a tenant's, an agent's): the operator's own exceptions have no place in it. */
must_check bool permissions_read_narrowing(struct arena *arena,
                                           const struct yaml_document *document,
                                           const struct json *value, struct permissions *out,
                                           struct error *e);

/* What both allow.  `b` is the operator's: its allowed_ips count, the manifest's do not. */
struct permissions permissions_intersect(struct arena *arena, const struct permissions *a,
                                         const struct permissions *b);
/* What `base` allows of what `by` allows: never more than `base`.  A list that `by` leaves out stays as it is. */
struct permissions permissions_narrow(struct arena *arena, const struct permissions *base,
                                      const struct permissions *by);

/*
 * The levels that say what a tool may touch, from the one that asks to those that only narrow.
 *
 *      manifest (asks) ∩ configuration (the operator grants) ∩ tenant ∩ agent
 *
 * Each value of the result was decided by one level: the last one that changed it.
 */
enum permission_level {
    PERMISSION_MANIFEST,
    PERMISSION_CONFIGURATION,
    PERMISSION_TENANT,
    PERMISSION_AGENT,
    PERMISSION_LEVEL_COUNT
};
const char *permission_level_name(enum permission_level level); /* "manifest" */
struct permission_levels {
    const struct permissions *at[PERMISSION_LEVEL_COUNT]; /* NULL: it says nothing */
};
enum { PERMISSION_VALUE_COUNT = 14 };
struct permission_trace {
    enum permission_level decided_by[PERMISSION_VALUE_COUNT];
};
/* `trace` may be NULL. */
struct permissions permissions_effective(struct arena *arena,
                                         const struct permission_levels *levels,
                                         struct permission_trace *trace);
const char *permission_value_name(size_t index); /* "network.allowed_hosts" */
bool permission_value_is_set(const struct permissions *permissions, size_t index);
/* As YAML and JSON spell it; null when it is not set. */
void permission_value_write(struct json_writer *w, const struct permissions *permissions,
                            size_t index);

/* May a session's file of this name be read, by a tool that may read them at all (host calls file_size, file_read): where there
   are `paths`, one of paths.read matches ("*" is any run of characters), and the extension is allowed. */
bool permissions_allow_read(const struct permissions *permissions, str name);
/* Is a path one that a list of patterns lets through?  A list left out or empty: no. */
bool permissions_allow_path(const struct str_list *patterns, str path);
/* By the end of the name, letters in either case; no list: every extension. */
bool permissions_allow_extension(const struct permissions *permissions, str name);
void permissions_write_json(struct json_writer *w, const struct permissions *permissions);

#endif
