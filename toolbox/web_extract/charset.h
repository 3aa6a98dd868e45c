/*
 * The character set of a page: what its header says, else its byte order mark, else its <meta>, else UTF-8 when it is that, else
 * windows-1252.  UTF-8, UTF-16 (both orders), ISO-8859-1 and windows-1252 (which browsers take for it) are read.
 */
#ifndef NEXUS_TOOL_CHARSET_H
#define NEXUS_TOOL_CHARSET_H

#include "nexus_tool.h"

/* `content_type`: the header's value, may be empty.  *out is UTF-8: the page itself or a copy (*give_copy, else NULL). */
void charset_decode(struct text page, struct text content_type, struct text *out, char **give_copy);

#endif
