/* what a call costs, exactly */
#include "llm/prices.h"

/* 128 bits hold it: the classes of input sum to the input, those of output to the output, so there are two products of
 * 63-bit numbers at most. */
typedef __int128 wide;

static int64_t rate_or(int64_t rate, int64_t otherwise)
{
    return rate < 0 ? otherwise : rate;
}

static struct price_rates complete(struct price_rates rates)
{
    rates.input = rate_or(rates.input, 0);
    rates.output = rate_or(rates.output, 0);
    rates.cached = rate_or(rates.cached, rates.input);
    rates.cache_write = rate_or(rates.cache_write, rates.input);
    rates.reasoning = rate_or(rates.reasoning, rates.output);
    return rates;
}

static struct price_rates short_rates(const struct model_price *price)
{
    return complete((struct price_rates){
        .input = price->input_picousd_per_token,
        .cached = price->cached_picousd_per_token,
        .cache_write = price->cache_write_picousd_per_token,
        .output = price->output_picousd_per_token,
        .reasoning = price->reasoning_picousd_per_token,
    });
}

static bool is_long(const struct model_price *price, int64_t input_tokens)
{
    return price->long_above_tokens > 0 && input_tokens > price->long_above_tokens;
}

static int64_t within(int64_t tokens, int64_t max)
{
    return tokens < 0 ? 0 : tokens < max ? tokens : max;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t nanousd_rounded_up(wide picousd)
{
    wide nanousd = picousd / 1000 + (picousd % 1000 != 0);
    return nanousd > INT64_MAX ? INT64_MAX : (int64_t) nanousd;
}

int64_t price_nanousd(const struct model_price *price, const struct usage *usage)
{
    if (!price->is_known)
        return 0;
    int64_t input = within(usage->input_tokens, INT64_MAX);
    int64_t output = within(usage->output_tokens, INT64_MAX);
    int64_t cached = within(usage->cached_tokens, input);
    int64_t written = within(usage->cache_write_tokens, input - cached);
    int64_t reasoning = within(usage->reasoning_tokens, output);
    struct price_rates rates =
        is_long(price, input) ? complete(price->long_rates) : short_rates(price);
    return nanousd_rounded_up((wide) (input - cached - written) * rates.input +
                              (wide) cached * rates.cached + (wide) written * rates.cache_write +
                              (wide) (output - reasoning) * rates.output +
                              (wide) reasoning * rates.reasoning);
}

static wide bound(const struct price_rates *rates, int64_t input, int64_t output)
{
    return (wide) input * larger(rates->input, larger(rates->cached, rates->cache_write)) +
           (wide) output * larger(rates->output, rates->reasoning);
}

/* The bound of the input may pass the border where the call does not: the dearer of both sides counts. */
int64_t price_bound_nanousd(const struct model_price *price, int64_t input_tokens,
                            int64_t output_tokens)
{
    if (!price->is_known)
        return 0;
    int64_t input = within(input_tokens, INT64_MAX), output = within(output_tokens, INT64_MAX);
    struct price_rates rates = short_rates(price);
    if (!is_long(price, input))
        return nanousd_rounded_up(bound(&rates, input, output));
    struct price_rates long_rates = complete(price->long_rates);
    wide short_bound = bound(&rates, price->long_above_tokens, output);
    wide long_bound = bound(&long_rates, input, output);
    return nanousd_rounded_up(short_bound > long_bound ? short_bound : long_bound);
}
