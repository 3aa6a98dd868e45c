/*
 * What the files of openai_format share.
 */
#ifndef NEXUS_LLM_OPENAI_FORMAT_INTERNAL_H
#define NEXUS_LLM_OPENAI_FORMAT_INTERNAL_H

#include "llm/openai_format.h"

/* part.opaque and delta.opaque of what came in a member other than "content": the member's name as
 * a JSON string. */
#define OPENAI_MEMBER_REFUSAL S("\"refusal\"")
#define OPENAI_MEMBER_REASONING_CONTENT S("\"reasoning_content\"")
#define OPENAI_MEMBER_REASONING S("\"reasoning\"")

/* A usage object; anything that is none gives one that is not reported. */
struct usage openai_read_usage(const struct json *usage);
enum finish openai_read_finish(str reason);
/* The members of a thinking block but for the place that a streamed one has in its list. */
void openai_write_members(struct json_writer *w, const struct json *block);
/* The reasoning in a message or delta, whichever member it is in; `opaque` names the member. */
bool openai_read_reasoning(const struct json *message, str *text, str *opaque);
/* The thinking_blocks of a message or delta as REASONING parts; room for thinking_block_count of them. */
size_t openai_thinking_block_count(const struct json *message);
size_t openai_read_thinking_blocks(struct arena *arena, const struct json *message,
                                   struct part *out);
/* A PDF by its bytes ({"type": "file", "file": {"file_data", "filename"}}) is a TEXT part without text whose opaque is a document
 * block as the Messages API has it.  False: no such file. */
bool openai_read_file(struct arena *arena, const struct json *item, struct part *out);
/* The same from a file's data: URL and name, wherever they stand. */
bool openai_make_file(struct arena *arena, str file_data, str name, struct part *out);
bool openai_is_file(struct arena *arena, const struct part *part);
void openai_write_file(struct json_writer *w, const struct part *part);
/* "call_..." for servers that give no id; the same for the same answer and index. */
str openai_make_call_id(struct arena *arena, str reply_id, int index, str name);

#endif
