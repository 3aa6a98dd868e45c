/* A price list: read or refused, never worse; what was read is found by its own names. */
#include "llm/prices.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct prices *prices = NULL;
    struct error e;
    if (!prices_parse(S("fuzz"), str_of((const char *) data, size), &prices, &e))
        return 0;
    struct model_price price = prices_find(prices, S("openai"), S("gpt-4o-2024-08-06"), 0);
    struct usage usage = {.input_tokens = 300000, .cached_tokens = 10, .output_tokens = 5};
    if (price_nanousd(&price, &usage) > price_bound_nanousd(&price, 300000, 5))
        __builtin_trap();
    prices_destroy(prices);
    return 0;
}
