/*
 * What every provider must do, as one suite (cmocka assertions) run against each implementation.
 *
 * The provider under test must answer a user's message that holds
 *     [[offline {"script":[{"text":"one two three"}]}]]              with a text that holds "one
 *     two three"
 *     [[offline {"script":[{"tool_calls":[...two calls...]}]}]]      with exactly these calls
 *     [[offline {"script":[{"error":"rate_limited","retry_after_ms":1500}]}]]   with that failure
 *     [[offline {"script":[{"sleep_ms":5000,"text":"late"}]}]]       after five seconds
 * (the stand-in does by its nature; for a network provider the test's server does).
 */
#ifndef NEXUS_LLM_PROVIDER_CONTRACT_H
#define NEXUS_LLM_PROVIDER_CONTRACT_H

#include "llm/provider.h"

void provider_contract(struct provider *provider, struct context *ctx);

/* Also of use elsewhere: reads a stream to its end into one reply on ctx's arena. */
may_suspend bool provider_contract_drain(struct reply_stream *stream, struct context *ctx,
                                         struct reply *out, struct error *e);

#endif
