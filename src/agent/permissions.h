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
/* What both allow.  `b` is the operator's: its allowed_ips count, the manifest's do not. */
struct permissions permissions_intersect(struct arena *arena, const struct permissions *a,
                                         const struct permissions *b);
/* May a session's file of this name be read, by a tool that may read them at all (host calls file_size, file_read): where there
   are `paths`, one of paths.read matches ("*" is any run of characters), and the extension is allowed. */
bool permissions_allow_read(const struct permissions *permissions, str name);
void permissions_write_json(struct json_writer *w, const struct permissions *permissions);

#endif
