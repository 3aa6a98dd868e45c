/* Upload: a local file into a session. */
#ifndef NEXUS_CLI_UPLOAD_H
#define NEXUS_CLI_UPLOAD_H

#include "cli/client.h"

/* `name` empty: the last part of the path.  *out: the file as the server sees it. */
may_suspend bool upload_file(struct client *client, struct context *ctx, str session_id, str name,
                             str path, const struct json **out, struct error *e);
/* By the extension; "application/octet-stream" when it is unknown. */
str upload_content_type(str name);

#endif
