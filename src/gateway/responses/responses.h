/*
 * Responses with a memory: what POST /v1/responses does beyond one model call.
 *
 * An answer that may be stored (`store`, true when not said) becomes a row: the caller's input items of this turn and the Response document,
 * each once.  previous_response_id names such a row; the chain behind it is read by following previous ids, and becomes the beginning of
 * the new call's input.
 *
 *      dialect.read --> responses_begin --> (responses_tree | responses_forward_body) --> model --> responses_keep --> last bytes --> responses_end
 *                       follows the chain    what goes to the model, history included               one commit
 *
 * - Rows belong to (tenant, user): to anybody else they do not exist.  They expire after RESPONSES_EXPIRY_MS (or as configured).
 * - The Response document of a stream is in its last event, so nothing has to be collected on the way.
 * - A client that has seen the end of an answer finds it by GET: responses_keep waits for its commit, and comes before the last bytes.
 * - An answer that was passed through has the id its provider gave it.  While the same provider answers the follow-up, the id is all that
 *   is sent; any other target gets the history itself.
 * - Not stored: input over RESPONSES_INPUT_BYTES_MAX, documents over RESPONSES_DOCUMENT_BYTES_MAX, answers that failed.
 *
 * A call's state is on the heap: it outlives the handler when a relay goes on without it.
 * Thread: the call's loop.  Suspends: what is marked.
 */
#ifndef NEXUS_GATEWAY_RESPONSES_H
#define NEXUS_GATEWAY_RESPONSES_H

#include "base/uuid.h"
#include "llm/dialect.h"
#include "runtime/context.h"

struct api_call;
struct responses_call;

/* After dialect.read, before anything is reserved.  Refuses what is not served here (background, conversation) and ids that are unknown,
   another user's or expired (REASON_PREVIOUS_RESPONSE).  With a history *request is read anew: input_tokens_bound covers it. */
may_suspend bool responses_begin(struct api_call *call, const struct json *body,
                                 struct dialect_request *request, struct responses_call **out,
                                 struct error *e);
void responses_end(struct responses_call *responses); /* NULL is fine */
static inline void responses_call_destroy(struct responses_call *responses)
{
    responses_end(responses);
}
OWNED_DEFINE(responses_call)

/* The provider that holds the chain (its name), or empty: the one to prefer.  Lives as long as the state. */
str responses_provider(const struct responses_call *responses);
/* Agents: the session that the chain belongs to, UUID_NONE: none yet. */
uuid responses_session(const struct responses_call *responses);

/* Agents: an approval that a run waits for, as the item that tells of it: the opaque of a TEXT part or delta without text. */
may_suspend bool responses_approval(struct api_call *call, uuid approval_id, str *opaque,
                                    struct error *e);

/* What dialect.to_prompt gets in place of the caller's body: the history is part of its input.  Lives until responses_park. */
const struct json *responses_tree(const struct responses_call *responses);
/* What dialect.edit_request gets when the target's provider (its name) speaks this dialect: the caller's own bytes, or the same with the
   history in front of `input` when the chain is not that provider's.  Lives until responses_park, and not longer than call->body. */
str responses_forward_body(const struct responses_call *responses, str provider);

/* Drops what was only needed to send: for relays that stay open. */
void responses_park(struct responses_call *responses);

/* Is the answer to be stored?  Then the last event waits for responses_keep. */
bool responses_is_kept(const struct responses_call *responses);
/* Who made the answer: a provider whose own bytes were passed through, or a session of an agent. */
void responses_set_provider(struct responses_call *responses, str provider);
void responses_set_session(struct responses_call *responses, uuid session_id);

/*
 * Stores the answer; before its last bytes go out.  `answer` is the Response document, or the data of the stream's last event, or the
 * text of events whose last one that is (what a stream writer appended).  True also when there is nothing to store (store false, failed).
 * False: it could not be stored; logged; *e is why.  The answer is good all the same: send it, and say so in Nexus-Degraded when the
 * head has not gone out.
 */
may_suspend bool responses_keep(struct responses_call *responses, struct context *ctx, str answer,
                                struct error *e);

#endif
