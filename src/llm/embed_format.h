/*
 * Embeddings in OpenAI's form, both directions, as pure text transformations (no I/O).
 * Source: shared OpenAPI subset of the OpenAI API (/embeddings).
 */
#ifndef NEXUS_LLM_EMBED_FORMAT_H
#define NEXUS_LLM_EMBED_FORMAT_H

#include "llm/provider.h"

/* Asks for base64: a third of the bytes of decimal text, and exact.  Servers that do not know it answer with numbers. */
void embed_write_request(struct json_writer *w, const struct embed_request *request);
/* Does a request have members that are none of the API's own (a server's dialect: "truncate", "input_type")? */
bool embed_has_extra(const struct json *request);
/*
 * An answer to `request`; vectors on the arena.  Each input must be answered exactly once (by `index`; the order of an answer without
 * any counts), all with the same number of finite values, and as many as were asked for.  Anything else is PROVIDER_PROTOCOL; an error
 * object is an error of its class.
 */
must_check bool embed_read_reply(struct arena *arena, const struct json *body,
                                 const struct embed_request *request, struct embed_reply *out,
                                 struct error *e);

enum { EMBED_NUMBER_BYTES = 24 };
/* As few digits as read back to the same float, as text or by way of a double; JSON.  Gives the length; the value is finite. */
size_t embed_print_number(float value, char out[EMBED_NUMBER_BYTES]);
/* `count` floats as 4 bytes each, least significant first. */
void embed_pack(const float *values, size_t count, char *out);

/* Upper bound of a text's tokens; of a JSON array of tokens: how many there are at most. */
int64_t embed_tokens_bound(str text, bool are_tokens);

#endif
