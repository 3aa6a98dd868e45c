/*
 * Model Context Protocol: the messages, for both sides and all eras.
 *
 *      bytes --mcp_read--> struct mcp_message --(client: agent/mcp_*; server: gateway/mcp_*)--> mcp_write_* --> bytes
 *
 * | era | revision | how |
 * | session | 2025-06-18, 2025-11-25 | initialize, Mcp-Session-Id, GET stream, notifications |
 * | stateless | 2026-07-28 | no session: server/discover, version and capabilities in each request's _meta |
 *
 * Pure: no I/O, everything borrows the input or lives on the arena.  Bounds: MCP_* in base/limits.h.  A message that is no JSON-RPC 2.0
 * is refused with the code a peer must get.
 * Source: modelcontextprotocol.io specification of the three revisions; JSON-RPC 2.0.
 */
#ifndef NEXUS_MCP_MCP_H
#define NEXUS_MCP_MCP_H

#include "base/digest.h"
#include "base/json.h"

enum mcp_era { MCP_ERA_SESSION, MCP_ERA_STATELESS };
struct mcp_revision {
    str name; /* "2025-06-18" */
    enum mcp_era era;
};
extern const struct mcp_revision mcp_revisions[]; /* newest first */
extern const size_t mcp_revision_count;
const struct mcp_revision *mcp_revision_find(str name); /* NULL: not known */

/* JSON-RPC and MCP error codes. */
enum {
    MCP_PARSE_ERROR = -32700,
    MCP_INVALID_REQUEST = -32600,
    MCP_METHOD_NOT_FOUND = -32601,
    MCP_INVALID_PARAMS = -32602,
    MCP_INTERNAL_ERROR = -32603,
    MCP_RESOURCE_NOT_FOUND = -32002, /* session era only; the stateless era says INVALID_PARAMS */
    MCP_HEADER_MISMATCH = -32020,
    MCP_MISSING_CAPABILITY = -32021,
    MCP_UNSUPPORTED_VERSION = -32022, /* data: {"supported": [...], "requested": "..."} */
};
/* One that only a server of the stateless era gives: a client then stays in that era instead of falling back to initialize. */
bool mcp_error_is_stateless(int64_t code);

/* Members of _meta. */
#define MCP_META_VERSION S("io.modelcontextprotocol/protocolVersion")
#define MCP_META_CLIENT_INFO S("io.modelcontextprotocol/clientInfo")
#define MCP_META_CLIENT_CAPABILITIES S("io.modelcontextprotocol/clientCapabilities")
#define MCP_META_SERVER_INFO S("io.modelcontextprotocol/serverInfo")
#define MCP_META_SUBSCRIPTION_ID S("io.modelcontextprotocol/subscriptionId")
#define MCP_META_PROGRESS_TOKEN S("progressToken")

/* ---- messages ---- */

enum mcp_kind { MCP_REQUEST, MCP_NOTIFICATION, MCP_RESULT, MCP_ERROR };
struct mcp_message {
    enum mcp_kind kind;
    const struct json *id; /* string or integer; NULL for notifications, and errors without one */
    str method;            /* requests and notifications */
    const struct json *params, *result; /* objects; may be NULL */
    const struct json *meta;            /* params._meta or result._meta; may be NULL */
    int64_t error_code;
    str error_message;
    const struct json *error_data; /* may be NULL */
};
/*
 * False: `error_code` says which JSON-RPC error to answer with, `e` what is wrong and where; out->id is then the message's id when it had
 * a lawful one.  A batch (an array) is refused: the three revisions have none.
 */
must_check bool mcp_read(struct arena *arena, str text, struct mcp_message *out,
                         int64_t *error_code, struct error *e);
/* Are two ids the same?  1 and "1" are not. */
bool mcp_id_equal(const struct json *a, const struct json *b);

/*
 * {"jsonrpc":"2.0","id":...,"method":...,"params":  : the caller writes params (an object) and calls mcp_end.
 * The id is `id` when that is not NULL, else the number when it is > 0, else there is none: a notification.
 */
void mcp_begin_request(struct json_writer *w, const struct json *id, int64_t id_number, str method);
void mcp_begin_result(struct json_writer *w, const struct json *id);
void mcp_end(struct json_writer *w);
void mcp_write_error(struct json_writer *w, const struct json *id, int64_t code, str message);
/* The same with `data`, JSON text. */
void mcp_write_error_data(struct json_writer *w, const struct json *id, int64_t code, str message,
                          str data_json);
/* {"name": ..., "version": ...}: what both sides call themselves. */
void mcp_write_implementation(struct json_writer *w, str name, str version);

/* ---- tools ---- */

/* Tool names, as both sides must agree on them: [A-Za-z0-9_.-]{1,128}. */
bool mcp_tool_name_is_valid(str name);

/* One definition of tools/list. */
struct mcp_tool {
    str name, title, description;
    const struct json *input_schema;  /* an object */
    const struct json *output_schema; /* NULL: none */
    const struct json
        *annotations; /* what the server says of itself: believed by nobody; NULL: none */
};
/* Bounds: MCP_TOOL_*; a name that is not UTF-8 text without control characters is refused, one outside mcp_tool_name_is_valid is not. */
must_check bool mcp_tool_read(const struct json *value, struct mcp_tool *out, struct error *e);
/* {name, title, description, inputSchema, outputSchema, annotations} in canonical form: what a person approves, and its digest. */
str mcp_tool_canonical(struct arena *arena, const struct mcp_tool *tool);
digest mcp_tool_digest(struct arena *arena, const struct mcp_tool *tool);
/* For servers: schemas and annotations as JSON text; empty ones are left out. */
struct mcp_tool_text {
    str name, title, description, input_schema, output_schema, annotations;
};
void mcp_tool_write(struct json_writer *w, const struct mcp_tool_text *tool);

/* ---- content blocks of a result ---- */

enum mcp_content_kind {
    MCP_CONTENT_TEXT,
    MCP_CONTENT_IMAGE,
    MCP_CONTENT_AUDIO,
    MCP_CONTENT_RESOURCE_LINK,
    MCP_CONTENT_RESOURCE, /* embedded: text or blob */
    MCP_CONTENT_UNKNOWN,
};
struct mcp_content {
    enum mcp_content_kind kind;
    str text;            /* TEXT; RESOURCE with text */
    str data, mime_type; /* IMAGE, AUDIO, RESOURCE with blob: base64 as it came, not checked */
    str uri, name;       /* RESOURCE_LINK, RESOURCE */
};
/* False: no object with a `type`, or a member of the wrong type. */
must_check bool mcp_content_read(const struct json *value, struct mcp_content *out,
                                 struct error *e);
void mcp_content_write_text(struct json_writer *w, str text);
void mcp_content_write_image(struct json_writer *w, str base64, str mime_type);

/* ---- header fields of the stateless era ---- */

/* A value as Mcp-Name or Mcp-Param-* carries it: as it is, or =?base64?...?= when it is no plain visible ASCII. */
str mcp_header_encode(struct arena *arena, str value);
must_check bool mcp_header_decode(struct arena *arena, str value, str *out); /* false: malformed */

/* `x-mcp-header` of an input schema: arguments that travel as header fields too. */
struct mcp_param {
    str header;   /* "Region": the field is Mcp-Param-Region */
    str *path;    /* member names from the root of the arguments */
    size_t depth; /* 1.. */
};
/* Refuses a schema whose annotations break the rules of the specification: such a tool must not be offered over HTTP. */
must_check bool mcp_params_read(struct arena *arena, const struct json *input_schema,
                                struct mcp_param **out, size_t *count, struct error *e);
/* The field's value, encoded; false when the argument is absent, null or no primitive. */
bool mcp_param_value(struct arena *arena, const struct mcp_param *param,
                     const struct json *arguments, str *out);

#endif
