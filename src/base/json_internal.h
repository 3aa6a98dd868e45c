/*
 * What the files of json.h share: json.c (trees), json_write.c (the writer), json_canonical.c (RFC
 * 8785).
 */
#ifndef NEXUS_BASE_JSON_INTERNAL_H
#define NEXUS_BASE_JSON_INTERNAL_H

#include "base/json.h"

enum { JSON_NUMBER_BYTES = 40 };

/*
 * The shortest digits that read back to this finite double, as JSON ("1.0", "1e-7").  Gives the
 * length; not terminated.
 */
size_t json_format_double(double value, char out[JSON_NUMBER_BYTES]);
/* A string with its quotes, escaped; invalid UTF-8 becomes U+FFFD. */
void json_escape(struct strbuf *out, str value);
/* A whole tree as compact text. */
void json_print_to(struct strbuf *out, const struct json *value);

#endif
