/*
 * The registry's inside.
 *
 *   registry.c          life: parts + configuration + states -> snapshot
 *   registry_read.c     folders of tools -> parts
 *   registry_config.c   `tools:` of the configuration
 *   registry_state.c    what people decided
 *   registry_resolve.c  which tool is meant, with which permissions
 *   registry_search.c   which tools fit some words
 *
 * Parts, configurations and state sets are immutable and counted: snapshots share them.
 */
#ifndef NEXUS_AGENT_REGISTRY_INTERNAL_H
#define NEXUS_AGENT_REGISTRY_INTERNAL_H

#include "agent/tool/package.h"
#include "agent/tool/registry.h"
#include <stdatomic.h>
#include <stddef.h>

/* ---- search: the words of one tool ---- */
struct search_term {
    uint64_t hash;
    float weight; /* how often, by where */
};
struct search_document {
    struct search_term *terms; /* by hash */
    size_t term_count;
    float length;
};
struct search_document search_document_of(struct arena *arena, const struct tool *tool);

/* ---- parts: tools that came together ---- */
enum part_kind { PART_OF_FOLDER, PART_OF_PACKAGE, PART_OF_SOURCE };
struct part_tool {
    struct tool tool; /* permissions as the manifest asks */
    struct search_document document;
    bool is_signed;
    uint8_t public_key[SIGNATURE_KEY_BYTES];
};
struct registry_part {
    atomic_size_t references;
    enum part_kind kind;
    struct arena *arena;
    str source_name; /* of a source */
    uuid tenant_id;  /* of a package, with name and version */
    str name, version;
    struct part_tool *tools;
    size_t count, capacity;
    str *errors;
    size_t error_count;
};
struct registry_part *part_create(enum part_kind kind, size_t capacity);
void part_release(struct registry_part *part); /* NULL is fine */
void part_add_error(struct registry_part *part, str text);

/* Blocking. */
must_check bool part_read_folder(str tool_dir, struct registry_part **out, struct error *e);
struct registry_part *part_read_package(const struct registry_package *package);

/* ---- configuration ---- */
struct configured_tool {
    str name;
    bool has_permissions;
    struct permissions permissions;
    struct tool_notebooks notebooks;
    struct approval_rule approval;
    str version; /* range */
    str canary_version;
    int canary_percent;
};
struct trusted_key {
    str name;
    uint8_t public_key[SIGNATURE_KEY_BYTES];
};
struct configuration {
    atomic_size_t references;
    struct arena *arena;
    struct configured_tool *items;
    size_t count;
    struct trusted_key keys[REGISTRY_TRUSTED_KEYS_MAX];
    size_t key_count;
    bool needs_signature;
};
must_check bool configuration_read(const struct yaml_document *document, struct configuration **out,
                                   struct error *e);
void configuration_release(struct configuration *configuration);
const struct configured_tool *configuration_find(const struct configuration *configuration,
                                                 str name); /* NULL: none */
/* Empty: no trusted key. */
str configuration_signer(const struct configuration *configuration,
                         const uint8_t public_key[SIGNATURE_KEY_BYTES]);

/* ---- states ---- */
struct state_set {
    atomic_size_t references;
    struct arena *arena;
    struct registry_state *items; /* by tenant, then name */
    size_t count;
};
struct state_set *state_set_create(void);
void state_set_release(struct state_set *set);
must_check bool state_set_with(const struct state_set *old, const struct registry_state *states,
                               size_t count, bool is_all, struct state_set **out, struct error *e);
const struct registry_state *state_set_find(const struct state_set *set, uuid tenant_id, str name);

/* ---- the snapshot ---- */
struct entry {
    struct tool tool;
    const struct part_tool *from; /* as the manifest says */
    const struct configured_tool *configured;
};
struct registry_snapshot {
    atomic_size_t references;
    struct arena *arena;
    struct configuration *configuration;
    struct state_set *states;
    struct registry_part **parts;
    size_t part_count;
    struct entry *entries; /* by name, newest first, the platform's before a tenant's */
    size_t count;
    str *errors;
    size_t error_count;
};
/* The entries of a name: first and one past the last. */
void snapshot_range(const struct registry_snapshot *snapshot, str name, size_t *first, size_t *end);
const struct entry *entry_of(const struct registry_snapshot *snapshot,
                             const struct tool *tool); /* NULL: of no snapshot */
/* The same question for a name whose entries are known. */
const struct tool *resolve_in(const struct registry_snapshot *snapshot, size_t first, size_t end,
                              const struct registry_question *question);

#endif
