#include "agent/profile.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/map.h"
#include <stdlib.h>
#include <string.h>

enum { NONE = 0, PERMILLE_SHOWN_MIN = 5, FLAT_SHOWN_MAX = 30, INDENT_MAX = 40 };

struct function {
    char name[PROFILE_NAME_BYTES_MAX + 1];
    uint64_t self_ms, total_ms; /* total: of a recursion once */
    uint64_t counted_in;        /* the sample that total_ms has last counted */
};

/* Node 0 is the root and no function; 0 is also "no node". */
struct node {
    uint32_t function, parent, first_child, next;
    uint64_t self_ms, total_ms;
};

struct profile {
    size_t functions_max, nodes_max, function_count, node_count;
    struct function *functions;
    struct node *nodes;
    uint64_t sample_count;
    bool is_full;
    uint64_t seed;
    size_t slot_count;
    uint32_t *slots; /* of functions by name: index + 1 */
};

struct profile *profile_create(size_t functions_max, size_t nodes_max)
{
    struct profile *profile = calloc(1, sizeof *profile);
    ensure(profile != NULL && functions_max > 0 && nodes_max > 1);
    profile->functions_max = functions_max;
    profile->nodes_max = nodes_max;
    profile->slot_count = 2 * functions_max;
    profile->functions = calloc(functions_max, sizeof *profile->functions);
    profile->nodes = calloc(nodes_max, sizeof *profile->nodes);
    profile->slots = calloc(profile->slot_count, sizeof *profile->slots);
    ensure(profile->functions != NULL && profile->nodes != NULL && profile->slots != NULL);
    profile->node_count = 1;
    profile->seed = map_seed();
    return profile;
}

void profile_destroy(struct profile *profile)
{
    if (!profile)
        return;
    free(profile->functions);
    free(profile->nodes);
    free(profile->slots);
    free(profile);
}

/* ---- adding ---- */

static size_t clean_name(str name, char out[PROFILE_NAME_BYTES_MAX + 1])
{
    if (str_is_empty(name)) /* it could not be told from no function */
        name = S("?");
    size_t len = name.len < PROFILE_NAME_BYTES_MAX ? name.len : PROFILE_NAME_BYTES_MAX;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char) name.ptr[i];
        out[i] = c >= 0x20 && c < 0x7f && c != ';' ? (char) c : '?';
    }
    out[len] = '\0';
    return len;
}

static bool find_function(struct profile *profile, str raw_name, uint32_t *out)
{
    char name[PROFILE_NAME_BYTES_MAX + 1];
    size_t len = clean_name(raw_name, name);
    size_t slot = str_hash(str_of(name, len), profile->seed) % profile->slot_count;
    while (profile->slots[slot] != 0) {
        *out = profile->slots[slot] - 1;
        if (strcmp(profile->functions[*out].name, name) == 0)
            return true;
        slot = (slot + 1) % profile->slot_count;
    }
    if (profile->function_count == profile->functions_max)
        return false;
    *out = (uint32_t) profile->function_count++;
    memcpy(profile->functions[*out].name, name, len + 1);
    profile->slots[slot] = *out + 1;
    return true;
}

static uint32_t find_child(struct profile *profile, uint32_t parent, uint32_t function)
{
    uint32_t child = profile->nodes[parent].first_child;
    while (child != NONE && profile->nodes[child].function != function)
        child = profile->nodes[child].next;
    if (child != NONE || profile->node_count == profile->nodes_max)
        return child;
    child = (uint32_t) profile->node_count++;
    profile->nodes[child] = (struct node){
        .function = function, .parent = parent, .next = profile->nodes[parent].first_child};
    profile->nodes[parent].first_child = child;
    return child;
}

static void count_function(struct profile *profile, uint32_t index, uint64_t weight_ms)
{
    struct function *function = &profile->functions[index];
    if (function->counted_in == profile->sample_count)
        return;
    function->counted_in = profile->sample_count;
    function->total_ms += weight_ms;
}

void profile_add(struct profile *profile, const str *functions, size_t count, uint64_t weight_ms)
{
    uint32_t node = 0;
    if (count == 0)
        return;
    profile->sample_count++;
    profile->nodes[0].total_ms += weight_ms;
    for (size_t i = 0; i < count; i++) {
        uint32_t function, child = NONE;
        if (find_function(profile, functions[i], &function))
            child = find_child(profile, node, function);
        if (child == NONE) {
            profile->is_full = true;
            break;
        }
        node = child;
        profile->nodes[node].total_ms += weight_ms;
        count_function(profile, function, weight_ms);
    }
    profile->nodes[node].self_ms += weight_ms;
    if (node != 0)
        profile->functions[profile->nodes[node].function].self_ms += weight_ms;
}

static bool add_line(struct profile *profile, str line)
{
    str functions[PROFILE_DEPTH_MAX], piece;
    uint64_t weight_ms;
    size_t count = 0, space = line.len;
    while (space > 0 && line.ptr[space - 1] != ' ')
        space--;
    if (space < 2 || !str_to_u64(str_from(line, space), &weight_ms) ||
        weight_ms > PROFILE_WEIGHT_MS_MAX)
        return false;
    str stack = str_slice(line, 0, space - 1);
    while (str_next(&stack, ';', &piece)) {
        if (count == PROFILE_DEPTH_MAX)
            return false;
        functions[count++] = piece;
    }
    profile_add(profile, functions, count, weight_ms);
    return true;
}

bool profile_add_folded(struct profile *profile, str folded)
{
    str line;
    bool is_ok = true;
    while (str_next(&folded, '\n', &line))
        if (!str_is_empty(line))
            is_ok = add_line(profile, line) && is_ok;
    return is_ok;
}

/* ---- reading ---- */

uint64_t profile_total_ms(const struct profile *profile)
{
    return profile->nodes[0].total_ms;
}

bool profile_is_full(const struct profile *profile)
{
    return profile->is_full;
}

static str name_of(const struct profile *profile, uint32_t node)
{
    return str_from_cstr(profile->functions[profile->nodes[node].function].name);
}

static void write_stack(const struct profile *profile, uint32_t node, struct strbuf *out)
{
    uint32_t path[PROFILE_DEPTH_MAX];
    size_t depth = 0;
    for (; node != 0 && depth < PROFILE_DEPTH_MAX; node = profile->nodes[node].parent)
        path[depth++] = node;
    while (depth > 0) {
        strbuf_add(out, name_of(profile, path[--depth]));
        if (depth > 0)
            strbuf_add_char(out, ';');
    }
}

void profile_write_folded(const struct profile *profile, struct strbuf *out)
{
    for (uint32_t node = 1; node < profile->node_count; node++) {
        size_t before = out->len;
        if (profile->nodes[node].self_ms == 0)
            continue;
        write_stack(profile, node, out);
        strbuf_add_char(out, ' ');
        strbuf_add_u64(out, profile->nodes[node].self_ms);
        strbuf_add_char(out, '\n');
        if (strbuf_is_over(out)) { /* whole lines only */
            strbuf_truncate(out, before);
            return;
        }
    }
}

static double percent(const struct profile *profile, uint64_t part_ms)
{
    uint64_t total_ms = profile_total_ms(profile);
    return total_ms > 0 ? 100 * (double) part_ms / (double) total_ms : 0;
}

static bool is_shown(const struct profile *profile, uint64_t part_ms)
{
    return part_ms > 0 && part_ms * 1000 >= profile_total_ms(profile) * PERMILLE_SHOWN_MIN;
}

/* The function with the most time of its own after `last`; equals in their order. */
static const struct function *next_by_self(const struct profile *profile,
                                           const struct function *last)
{
    const struct function *best = NULL;
    for (size_t i = 0; i < profile->function_count; i++) {
        const struct function *f = &profile->functions[i];
        bool is_after =
            !last || f->self_ms < last->self_ms || (f->self_ms == last->self_ms && f > last);
        if (is_after && (!best || f->self_ms > best->self_ms))
            best = f;
    }
    return best;
}

static void write_flat(const struct profile *profile, struct strbuf *out)
{
    const struct function *function = NULL;
    strbuf_add(out, S("  self   total  function\n"));
    for (int i = 0; i < FLAT_SHOWN_MAX; i++) {
        function = next_by_self(profile, function);
        if (!function || !is_shown(profile, function->self_ms))
            return;
        strbuf_printf(out, "%5.1f%%  %5.1f%%  %s\n", percent(profile, function->self_ms),
                      percent(profile, function->total_ms), function->name);
    }
}

/* The child with the most time after `last`; 0 when there is none that is shown. */
static uint32_t next_child(const struct profile *profile, uint32_t parent, uint32_t last)
{
    const struct node *nodes = profile->nodes;
    uint32_t best = NONE;
    for (uint32_t child = nodes[parent].first_child; child != NONE; child = nodes[child].next) {
        bool is_after = last == NONE || nodes[child].total_ms < nodes[last].total_ms ||
                        (nodes[child].total_ms == nodes[last].total_ms && child > last);
        bool is_better = best == NONE || nodes[child].total_ms > nodes[best].total_ms ||
                         (nodes[child].total_ms == nodes[best].total_ms && child < best);
        if (is_after && is_better)
            best = child;
    }
    return best != NONE && is_shown(profile, nodes[best].total_ms) ? best : NONE;
}

/* Depth first without recursion: a node's place among its siblings is found again from the node itself. */
static void write_tree(const struct profile *profile, struct strbuf *out)
{
    uint32_t node = 0, depth = 0, child = next_child(profile, 0, NONE);
    strbuf_add(out, S("\n total    self  calls\n"));
    for (;;) {
        if (child != NONE) {
            node = child;
            depth++;
            strbuf_printf(out, "%5.1f%%  %5.1f%%  %*s%s\n",
                          percent(profile, profile->nodes[node].total_ms),
                          percent(profile, profile->nodes[node].self_ms),
                          (int) (2 * (depth < INDENT_MAX ? depth - 1 : INDENT_MAX)), "",
                          profile->functions[profile->nodes[node].function].name);
            child = next_child(profile, node, NONE);
            continue;
        }
        if (node == 0 || strbuf_is_over(out))
            return;
        child = next_child(profile, profile->nodes[node].parent, node);
        node = profile->nodes[node].parent;
        depth--;
    }
}

void profile_write_text(const struct profile *profile, struct strbuf *out)
{
    strbuf_printf(
        out, "%llu ms of CPU time in %llu stacks%s\n\n",
        (unsigned long long) profile_total_ms(profile), (unsigned long long) profile->sample_count,
        profile->is_full ? "; the profile is full, deeper calls count for their callers" : "");
    write_flat(profile, out);
    write_tree(profile, out);
}
