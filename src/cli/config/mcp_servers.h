/*
 * The section `mcp:` of the configuration: servers whose tools are used.
 *
 *      mcp:
 *        servers:
 *          - name: notes
 *            command: [/usr/bin/notes-mcp, --stdio]      # or  url: https://mcp.example.com/mcp
 *            env: {TOKEN: "${env:NOTES_TOKEN}"}          # or  headers: {Authorization: "Bearer ${env:...}"}
 *
 * It has mappings with free names, which the table of settings cannot describe; so it is read here, with the same references and the same
 * kind of errors ("file:line: what; remedy").
 */
#ifndef NEXUS_CLI_MCP_SERVERS_H
#define NEXUS_CLI_MCP_SERVERS_H

#include "agent/mcp/mcp_client.h"
#include "cli/config/config.h"

struct mcp_servers {
    struct arena *arena;
    struct mcp_upstream_config *items;
    size_t count;
};
const char *config_environment(const char *name); /* getenv, as the reader wants it */
must_check bool mcp_servers_read(const struct config *config,
                                 const char *(*environment)(const char *), struct mcp_servers **out,
                                 struct error *e);
void mcp_servers_destroy(struct mcp_servers *servers); /* wipes the secrets; NULL is fine */
OWNED_DEFINE(mcp_servers)

#endif
