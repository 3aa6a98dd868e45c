/*
 * Prices: what a model's tokens cost, from a catalogue file with validity dates, and the exact cost
 * of a call.
 *
 * Rates are pico-USD per token (a price of $2.50 per million tokens is 2,500,000).  A cost is summed
 * in pico-USD over all classes of tokens and rounded up once, to nano-USD.  Some providers bill a
 * whole request dearer when its input is long: a second set of rates says so.  The shipped catalogue
 * (prices/, one file per provider) names its source's date; an operator's own file (`prices.file`)
 * goes before it, a target's `price` before both.  docs/prices.md tells the form of a file.
 * Immutable after loading.  Thread: any.  Suspends: never; loading reads files.
 */
#ifndef NEXUS_LLM_PRICES_H
#define NEXUS_LLM_PRICES_H

#include "llm/prompt.h"

/* A rate that is not named: as input (cached, cache_write), as output (reasoning). */
enum { PRICE_LIKE_INPUT = -1 };

struct price_rates {
    int64_t input, cached, cache_write, output, reasoning; /* pico-USD per token */
};
struct model_price {
    bool is_known; /* false: refused under a money cap */
    int64_t input_picousd_per_token;
    int64_t cached_picousd_per_token;      /* input read from the provider's cache */
    int64_t cache_write_picousd_per_token; /* input written to it */
    int64_t output_picousd_per_token;
    int64_t reasoning_picousd_per_token; /* output that is thinking */
    int64_t long_above_tokens;           /* input above this: `long_rates` for all; 0: never */
    struct price_rates long_rates;
};

/* Exact cost of a call, rounded up once.  0 when the price is unknown. */
int64_t price_nanousd(const struct model_price *price, const struct usage *usage);
/* Upper bound for a reservation: the dearest rate a token may have counts. */
int64_t price_bound_nanousd(const struct model_price *price, int64_t input_tokens,
                            int64_t output_tokens);

struct prices;
/* `path` is a YAML file or a folder of *.yaml.  REASON_CONFIG with file:line. */
must_check bool prices_load(str path, struct prices **out, struct error *e);
/* The text of one file; `name` is for messages. */
must_check bool prices_parse(str name, str text, struct prices **out, struct error *e);
void prices_destroy(struct prices *prices); /* NULL is fine */
OWNED_DEFINE(prices)
str prices_date(const struct prices *prices);    /* "2026-11-05": the newest of its files */
str prices_version(const struct prices *prices); /* of that file */
size_t prices_count(const struct prices *prices);
/* The rate of a model that is valid at a moment; is_known false when there is none.  `provider` is a
   name of the file or a host of it ("api.openai.com"; "*.example.com" in the file covers what lies
   below).  The name itself goes first, then what the file's aliases cover ("gpt-4o-audio*"), then
   the name without a date behind it ("gpt-4o-2024-08-06", "claude-opus-4-5-20251101"). */
struct model_price prices_find(const struct prices *prices, str provider, str model,
                               int64_t at_unix_us);

#endif
