/*
 * What the files of tool administration share.
 *
 *   tool_admin.c    rows <-> registry: load, remove, states
 *   tool_state.c    decisions about a tool
 *   tool_upload.c   a package from its bytes to its folder and row
 *   tool_explain.c  why a tool may do what it may
 */
#ifndef NEXUS_ORCHESTRATOR_TOOL_ADMIN_INTERNAL_H
#define NEXUS_ORCHESTRATOR_TOOL_ADMIN_INTERNAL_H

#include "orchestrator/orchestrator_internal.h"
#include "orchestrator/tools/tool_admin.h"

/* Runs `change` alone among all changes of tools, on lane 0, with the caller's arena. */
typedef bool tool_change_fn(struct orchestrator *o, struct context *ctx, void *argument,
                            struct error *e);
may_suspend bool tool_admin_alone(struct orchestrator *o, struct context *ctx,
                                  tool_change_fn *change, void *argument, struct error *e);
/* The tenant an administrator acts for. */
must_check bool tool_admin_tenant(const struct principal *principal, bool is_platform, uuid *out,
                                  struct error *e);
/* "DATA_DIR/tools/<relative>" */
str tool_admin_path(struct arena *arena, const struct orchestrator *o, str relative);
struct registry_package tool_admin_package(struct arena *arena, const struct orchestrator *o,
                                           uuid tenant_id, const struct record *row);
/* A row as the registry takes it. */
must_check bool tool_admin_state(struct arena *arena, uuid tenant_id, const struct record *row,
                                 struct registry_state *out, struct error *e);
void tool_admin_audit(struct batch *batch, struct orchestrator *o,
                      const struct principal *principal, const char *action, str name, str version,
                      bool is_platform);
/* Removes a folder of plain files; blocking; what is not there is fine. */
void tool_admin_remove_folder(const char *path);

#endif
