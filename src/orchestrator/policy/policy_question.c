/* What of an input can matter to a policy set, and the question that this makes of an input. */
#include "base/arena.h"
#include "base/digest.h"
#include "base/map.h"
#include "orchestrator/policy/policy_memo_internal.h"

enum { TRUTHS_MAX = 64, MEMBERS_MAX = 16, MEMBER_PARTS_MAX = 8, TEXT_PLAIN_BYTES_MAX = 128 };

enum field {
    FIELD_ACTION,
    FIELD_RESOURCE,
    FIELD_USER_ID,
    FIELD_ROLE,
    FIELD_TENANT,
    FIELD_TOOL_NAME,
    FIELD_TOOL_VERSION,
    FIELD_TOOL_CATEGORY,
    FIELD_SESSION_ID,
    FIELD_TOKENS,
    FIELD_TIME,
    FIELD_COST,
    FIELD_TOOL_CALLS,
    FIELD_CONTEXT,
    FIELD_ARGUMENTS,
    FIELD_STATUS,
    FIELD_APPROVER,
    FIELD_COUNT,
};

enum field_kind { KIND_OTHER, KIND_TEXT, KIND_NUMBER };

enum { FIELD_PARTS_MAX = 3 };

/* As policy_input_json writes them.  Change also there. */
static const struct {
    enum field_kind kind;
    const char *path[FIELD_PARTS_MAX];
} fields[FIELD_COUNT] = {
    [FIELD_ACTION] = {KIND_TEXT, {"action"}},
    [FIELD_RESOURCE] = {KIND_TEXT, {"resource"}},
    [FIELD_USER_ID] = {KIND_TEXT, {"user", "id"}},
    [FIELD_ROLE] = {KIND_TEXT, {"user", "role"}},
    [FIELD_TENANT] = {KIND_TEXT, {"user", "tenant"}},
    [FIELD_TOOL_NAME] = {KIND_TEXT, {"tool", "name"}},
    [FIELD_TOOL_VERSION] = {KIND_TEXT, {"tool", "version"}},
    [FIELD_TOOL_CATEGORY] = {KIND_TEXT, {"tool", "category"}},
    [FIELD_SESSION_ID] = {KIND_OTHER, {"session", "id"}},
    [FIELD_TOKENS] = {KIND_NUMBER, {"session", "budget", "tokens"}},
    [FIELD_TIME] = {KIND_NUMBER, {"session", "budget", "time_ms"}},
    [FIELD_COST] = {KIND_NUMBER, {"session", "budget", "cost_nanousd"}},
    [FIELD_TOOL_CALLS] = {KIND_NUMBER, {"session", "budget", "tool_calls"}},
    [FIELD_CONTEXT] = {KIND_OTHER, {"session", "policy_context"}},
    [FIELD_ARGUMENTS] = {KIND_OTHER, {"arguments"}},
    [FIELD_STATUS] = {KIND_OTHER, {"approval", "status"}},
    [FIELD_APPROVER] = {KIND_TEXT, {"approval", "approver"}},
};

enum operator{
    OPERATOR_LESS,
    OPERATOR_LESS_EQUAL,
    OPERATOR_EQUAL,
    OPERATOR_GREATER_EQUAL,
    OPERATOR_GREATER,
    OPERATOR_NOT_EQUAL
};
static const char *const operator_names[] = {"<", "<=", "==", ">=", ">", "!="};

/* field OP number */
struct number_test {
    enum field field;
    enum operator operator;
    int64_t number;
};

/* left == right, both fields; or left == text when right is FIELD_COUNT */
struct text_test {
    enum field left, right;
    str text;
};

/* arguments.member OP number, or == text when that is there */
struct member_test {
    size_t member_index;
    bool is_text;
    enum operator operator;
    int64_t number;
    str text;
};

/* A path below `arguments`. */
struct member {
    str parts[MEMBER_PARTS_MAX];
    size_t part_count;
    bool is_value; /* its value matters, not only its tests */
};

struct policy_reads {
    struct arena *arena; /* owned; names and texts */
    uint32_t touched;    /* one bit a field: it matters at least whether it is there */
    uint32_t values;     /* its value matters */
    size_t number_count, text_count, member_count, member_test_count;
    struct number_test numbers[TRUTHS_MAX];
    struct text_test texts[TRUTHS_MAX];
    struct member members[MEMBERS_MAX];
    struct member_test member_tests[TRUTHS_MAX];
};

/* ---- what the policy reads ---- */

/* How many parts the two paths share from the start; a part that is no name may be any. */
static size_t shared_parts(const struct json *path, enum field field, bool *out_differs)
{
    size_t length = json_count(path), i = 0;
    *out_differs = false;
    for (; i < length && i < FIELD_PARTS_MAX && fields[field].path[i]; i++) {
        str part;
        if (json_to_str(json_at(path, i), &part) &&
            !str_equal(part, str_from_cstr(fields[field].path[i]))) {
            *out_differs = true;
            break;
        }
    }
    return i;
}

/* One of the two leads to the other: what lies below a path that is read is read, and so is what a
 * longer path begins with. */
static bool touches(const struct json *path, enum field field)
{
    bool differs;
    shared_parts(path, field, &differs);
    return !differs;
}

/* FIELD_COUNT: the path names no field. */
static enum field field_of(const struct json *path)
{
    for (int field = 0; field < FIELD_COUNT; field++) {
        bool differs;
        size_t shared = shared_parts(path, (enum field) field, &differs);
        bool is_whole = shared == FIELD_PARTS_MAX || !fields[field].path[shared];
        if (!differs && is_whole && shared == json_count(path))
            return (enum field) field;
    }
    return FIELD_COUNT;
}

static bool is_kind(enum field field, enum field_kind kind)
{
    return field < FIELD_COUNT && fields[field].kind == kind;
}

/* The member that a path below `arguments` names, made when it is new.  NULL: it is none, or there
 * is no room for it. */
static struct member *member_of(struct policy_reads *reads, const struct json *path)
{
    size_t length = json_count(path);
    struct member member = {.part_count = length - 1};
    if (length < 2 || length - 1 > MEMBER_PARTS_MAX || !touches(path, FIELD_ARGUMENTS))
        return NULL;
    for (size_t i = 1; i < length; i++)
        if (!json_to_str(json_at(path, i), &member.parts[i - 1]))
            return NULL;
    for (size_t i = 0; i < reads->member_count; i++) {
        struct member *known = &reads->members[i];
        bool is_same = known->part_count == member.part_count;
        for (size_t part = 0; is_same && part < member.part_count; part++)
            is_same = str_equal(known->parts[part], member.parts[part]);
        if (is_same)
            return known;
    }
    if (reads->member_count == MEMBERS_MAX)
        return NULL;
    for (size_t i = 0; i < member.part_count; i++)
        member.parts[i] = str_copy(reads->arena, member.parts[i]);
    reads->members[reads->member_count] = member;
    return &reads->members[reads->member_count++];
}

static void note_value(struct policy_reads *reads, const struct json *path)
{
    struct member *member = member_of(reads, path);
    if (member) {
        member->is_value = true;
        return;
    }
    for (int field = 0; field < FIELD_COUNT; field++)
        if (touches(path, (enum field) field))
            reads->values |= 1u << field;
}

static bool note_number(struct policy_reads *reads, const struct json *path, enum operator operator,
                        int64_t number)
{
    enum field field = field_of(path);
    if (is_kind(field, KIND_NUMBER) && reads->number_count < TRUTHS_MAX) {
        reads->numbers[reads->number_count++] = (struct number_test){field, operator, number };
        return true;
    }
    const struct member *member = member_of(reads, path);
    if (!member || reads->member_test_count == TRUTHS_MAX)
        return false;
    reads->member_tests[reads->member_test_count++] = (struct member_test){
        .member_index = (size_t) (member - reads->members),
        .operator= operator,
        .number = number,
    };
    return true;
}

static bool note_text(struct policy_reads *reads, const struct json *path, str text)
{
    enum field field = field_of(path);
    if (field == FIELD_STATUS)
        return true; /* the same in every approval, and a question says whether there is one */
    if (is_kind(field, KIND_TEXT) && reads->text_count < TRUTHS_MAX) {
        reads->texts[reads->text_count++] =
            (struct text_test){field, FIELD_COUNT, str_copy(reads->arena, text)};
        return true;
    }
    const struct member *member = member_of(reads, path);
    if (!member || reads->member_test_count == TRUTHS_MAX)
        return false;
    reads->member_tests[reads->member_test_count++] = (struct member_test){
        .member_index = (size_t) (member - reads->members),
        .is_text = true,
        .text = str_copy(reads->arena, text),
    };
    return true;
}

static bool note_pair(struct policy_reads *reads, const struct json *path, const struct json *other)
{
    enum field left = field_of(path), right = field_of(other);
    if (!is_kind(left, KIND_TEXT) || !is_kind(right, KIND_TEXT) || reads->text_count == TRUTHS_MAX)
        return false;
    reads->texts[reads->text_count++] = (struct text_test){left, right, STR_NONE};
    return true;
}

static bool operator_of(str name, enum operator* out)
{
    for (size_t i = 0; i < ARRAY_COUNT(operator_names); i++) {
        *out = (enum operator) i;
        if (str_equal(name, str_from_cstr(operator_names[i])))
            return true;
    }
    return false;
}

/* False: it is none of those whose truth we can tell. */
static bool note_truth(struct policy_reads *reads, const struct json *comparison)
{
    const struct json *path = json_get(comparison, S("path")),
                      *other = json_get(comparison, S("other"));
    enum operator operator;
    int64_t number;
    str text;
    if (!operator_of(json_str_or(comparison, S("operator"), STR_NONE), &operator))
        return false;
    if (json_to_i64(json_get(comparison, S("number")), &number))
        return note_number(reads, path, operator, number);
    if (operator!= OPERATOR_EQUAL && operator!= OPERATOR_NOT_EQUAL)
        return false;
    if (json_to_str(json_get(comparison, S("text")), &text))
        return note_text(reads, path, text);
    return other && note_pair(reads, path, other);
}

static void note_all(struct policy_reads *reads, const struct json *inputs)
{
    const struct json *item;
    struct json_iter it = json_iter(json_get(inputs, S("values")));
    while (json_next(&it, NULL, &item))
        note_value(reads, item);
    it = json_iter(json_get(inputs, S("comparisons")));
    while (json_next(&it, NULL, &item)) {
        if (note_truth(reads, item))
            continue;
        note_value(reads, json_get(item, S("path")));
        if (json_get(item, S("other")))
            note_value(reads, json_get(item, S("other")));
    }
}

struct policy_reads *policy_reads_create(const struct json *inputs)
{
    const struct json *paths = json_get(inputs, S("paths")), *path;
    if (json_type(paths) != JSON_ARRAY || json_bool_or(inputs, S("is_volatile"), true) ||
        json_bool_or(inputs, S("has_with"), true))
        return NULL;
    struct json_iter it = json_iter(paths);
    while (json_next(&it, NULL, &path))
        if (json_count(path) == 0)
            return NULL;
    struct arena *arena = arena_create(0);
    struct policy_reads *reads = ARENA_NEW(arena, struct policy_reads);
    reads->arena = arena;
    it = json_iter(paths);
    while (json_next(&it, NULL, &path))
        for (int field = 0; field < FIELD_COUNT; field++)
            reads->touched |= (uint32_t) touches(path, (enum field) field) << field;
    note_all(reads, inputs);
    return reads;
}

void policy_reads_destroy(struct policy_reads *reads)
{
    if (reads)
        arena_destroy(reads->arena);
}

/* ---- questions ---- */

static bool add_bytes(struct policy_question *q, const void *bytes, size_t size)
{
    if (size > sizeof q->text - q->bytes)
        return false;
    memcpy(q->text + q->bytes, bytes, size);
    q->bytes += size;
    return true;
}

/* The length goes first, so that no two lists of texts look alike. */
static bool add_text(struct policy_question *q, str text)
{
    uint32_t length = (uint32_t) text.len;
    return text.len <= sizeof q->text && add_bytes(q, &length, sizeof length) &&
           (text.len == 0 || add_bytes(q, text.ptr, text.len));
}

/* A text that may be long: beyond some length its digest, behind a length that no text has. */
static bool add_document(struct policy_question *q, str text)
{
    if (text.len <= TEXT_PLAIN_BYTES_MAX)
        return add_text(q, text);
    digest whole = digest_sha256(text);
    return add_bytes(q, &(uint32_t){UINT32_MAX}, sizeof(uint32_t)) &&
           add_bytes(q, &whole, sizeof whole);
}

static str text_of(const struct policy_input *input, enum field field)
{
    switch (field) {
    case FIELD_ACTION: return input->action;
    case FIELD_RESOURCE: return input->resource;
    case FIELD_USER_ID: return input->user_id;
    case FIELD_ROLE: return input->role;
    case FIELD_TENANT: return input->tenant;
    case FIELD_TOOL_NAME: return input->tool_name;
    case FIELD_TOOL_VERSION: return input->tool_version;
    case FIELD_TOOL_CATEGORY: return input->tool_category;
    case FIELD_SESSION_ID:
        return str_of((const char *) input->session_id.bytes, sizeof input->session_id.bytes);
    case FIELD_TOKENS:
        return str_of((const char *) &input->remaining.tokens, sizeof input->remaining.tokens);
    case FIELD_TIME:
        return str_of((const char *) &input->remaining.time_ms, sizeof input->remaining.time_ms);
    case FIELD_COST:
        return str_of((const char *) &input->remaining.cost_nanousd,
                      sizeof input->remaining.cost_nanousd);
    case FIELD_TOOL_CALLS:
        return str_of((const char *) &input->remaining.tool_calls,
                      sizeof input->remaining.tool_calls);
    case FIELD_CONTEXT: return input->policy_context;
    case FIELD_ARGUMENTS: return input->arguments;
    case FIELD_STATUS: return STR_NONE; /* always the same when there is one */
    case FIELD_APPROVER: return input->approver;
    case FIELD_COUNT: break;
    }
    return STR_NONE;
}

static int64_t number_of(const struct policy_input *input, enum field field)
{
    cost remaining = input->remaining;
    return *cost_field(&remaining, (int) field - FIELD_TOKENS);
}

/* Which fields are there, of those that may be missing. */
static uint32_t present_fields(const struct policy_input *input)
{
    uint32_t present = 0;
    if (!str_is_empty(input->tool_name))
        present |= 1u << FIELD_TOOL_NAME | 1u << FIELD_TOOL_VERSION | 1u << FIELD_TOOL_CATEGORY;
    if (!uuid_is_none(input->session_id))
        present |= 1u << FIELD_SESSION_ID;
    if (!str_is_empty(input->policy_context))
        present |= 1u << FIELD_CONTEXT;
    if (!str_is_empty(input->arguments))
        present |= 1u << FIELD_ARGUMENTS;
    if (!str_is_empty(input->approver))
        present |= 1u << FIELD_STATUS | 1u << FIELD_APPROVER;
    return present;
}

static bool holds(int64_t left, enum operator operator, int64_t right)
{
    switch (operator) {
    case OPERATOR_LESS: return left < right;
    case OPERATOR_LESS_EQUAL: return left <= right;
    case OPERATOR_EQUAL: return left == right;
    case OPERATOR_GREATER_EQUAL: return left >= right;
    case OPERATOR_GREATER: return left > right;
    case OPERATOR_NOT_EQUAL: return left != right;
    }
    return false;
}

static bool add_number_truths(const struct policy_reads *reads, struct policy_question *q,
                              const struct policy_input *input)
{
    uint64_t bits = 0;
    for (size_t i = 0; i < reads->number_count; i++) {
        const struct number_test *test = &reads->numbers[i];
        bits |= (uint64_t) holds(number_of(input, test->field), test->operator, test->number) << i;
    }
    return reads->number_count == 0 || add_bytes(q, &bits, sizeof bits);
}

/* Bytes that are no UTF-8 reach the engine as replacement characters, so two texts that differ here
 * may be equal there. */
static bool is_same_text(str left, str right, bool *is_sound)
{
    *is_sound = *is_sound && str_is_utf8(left) && str_is_utf8(right);
    return str_equal(left, right);
}

static bool add_text_truths(const struct policy_reads *reads, struct policy_question *q,
                            const struct policy_input *input)
{
    uint64_t now = 0, then = 0; /* then: as if another person had approved */
    bool is_sound = true;
    struct policy_input approved = *input;
    approved.approver = policy_hypothetical_approver;
    for (size_t i = 0; i < reads->text_count; i++) {
        const struct text_test *test = &reads->texts[i];
        bool is_constant = test->right == FIELD_COUNT;
        str right = is_constant ? test->text : text_of(input, test->right);
        now |= (uint64_t) is_same_text(text_of(input, test->left), right, &is_sound) << i;
        right = is_constant ? test->text : text_of(&approved, test->right);
        then |= (uint64_t) is_same_text(text_of(&approved, test->left), right, &is_sound) << i;
    }
    return is_sound && (reads->text_count == 0 ||
                        (add_bytes(q, &now, sizeof now) && add_bytes(q, &then, sizeof then)));
}

/* ---- members of the arguments ---- */

static const struct json *find_member(const struct json *arguments, const struct member *member)
{
    for (size_t i = 0; i < member->part_count; i++)
        arguments = json_get(arguments, member->parts[i]);
    return arguments;
}

static bool add_member_truths(const struct policy_reads *reads, struct policy_question *q,
                              size_t member_index, const int64_t *number, str text)
{
    uint64_t bits = 0;
    for (size_t i = 0; i < reads->member_test_count; i++) {
        const struct member_test *test = &reads->member_tests[i];
        if (test->member_index != member_index || test->is_text != !number)
            continue; /* between values of two kinds a comparison is as good as a constant */
        bits |= (uint64_t) (number ? holds(*number, test->operator, test->number)
                                   : str_equal(text, test->text))
                << i;
    }
    return add_bytes(q, &bits, sizeof bits);
}

/* The kind goes first.  *is_plain becomes false for what the engine may see finer than we do: then
 * the whole text counts. */
static bool add_member(const struct policy_reads *reads, struct policy_question *q, size_t index,
                       const struct json *value, bool *is_plain)
{
    const struct member *member = &reads->members[index];
    enum json_type type = json_type(value);
    uint8_t kind = (uint8_t) type;
    int64_t number = 0;
    bool truth = false;
    str text = STR_NONE;
    if (!add_bytes(q, &kind, sizeof kind))
        return false;
    if (type == JSON_ABSENT || type == JSON_NULL)
        return true;
    if (json_to_bool(value, &truth))
        return add_bytes(q, &truth, sizeof truth);
    if (json_to_str(value, &text))
        return member->is_value ? add_document(q, text)
                                : add_member_truths(reads, q, index, NULL, text);
    if (type == JSON_INTEGER && json_to_i64(value, &number) &&
        number != 0) /* 0 may have been written -0, a real */
        return member->is_value ? add_bytes(q, &number, sizeof number)
                                : add_member_truths(reads, q, index, &number, STR_NONE);
    *is_plain = false;
    return true;
}

static bool add_members(const struct policy_reads *reads, struct policy_question *q,
                        const struct policy_input *input, const struct json *arguments)
{
    bool is_plain = true, fits = true;
    if (str_is_empty(input->arguments) || reads->values & 1u << FIELD_ARGUMENTS)
        return true;
    for (size_t i = 0; fits && i < reads->member_count; i++)
        fits = add_member(reads, q, i, find_member(arguments, &reads->members[i]), &is_plain);
    return fits && (is_plain || add_document(q, input->arguments));
}

/* ---- the whole question ---- */

/* A member by this name means something else to the engine's reader. */
static const str reserved_name = S_INIT("$serde_json::");

/* What is no JSON is refused by the engine, whether the policy reads it or not; the memo must not
 * be kinder.  Of two equal keys the engine takes the last and we would take the first, so such a
 * text is not remembered either. */
static bool read_document(struct arena *arena, str text, const struct json **out)
{
    struct error ignored;
    *out = NULL;
    return str_is_empty(text) || (text.len <= POLICY_MEMO_ARGUMENTS_BYTES_MAX &&
                                  str_find(text, reserved_name) == STR_NOT_FOUND &&
                                  json_parse(arena, text, (struct json_limits){0}, out, &ignored));
}

static bool add_values(const struct policy_reads *reads, struct policy_question *q,
                       const struct policy_input *input)
{
    bool fits = true;
    for (int field = 0; fits && field < FIELD_COUNT; field++) {
        if (!(reads->values & 1u << field))
            continue;
        bool is_document = field == FIELD_CONTEXT || field == FIELD_ARGUMENTS;
        str text = text_of(input, (enum field) field);
        fits = is_document ? add_document(q, text) : add_text(q, text);
    }
    return fits;
}

/* The engine refuses an input over its limit, whatever the policy reads of it. */
static bool is_short(const struct policy_input *input)
{
    size_t bytes = 0;
    for (int field = 0; field < FIELD_COUNT; field++)
        bytes += text_of(input, (enum field) field).len;
    return bytes <= 4 * POLICY_MEMO_ARGUMENTS_BYTES_MAX;
}

bool policy_reads_ask(const struct policy_reads *reads, struct arena *arena,
                      const struct policy_input *input, struct policy_question *out)
{
    const struct json *arguments, *ignored;
    uint32_t present = present_fields(input) & reads->touched;
    arena_mark mark = arena_save(arena);
    out->bytes = 0;
    bool is_whole = is_short(input) && add_bytes(out, &present, sizeof present) &&
                    add_values(reads, out, input) && add_number_truths(reads, out, input) &&
                    add_text_truths(reads, out, input) &&
                    read_document(arena, input->policy_context, &ignored) &&
                    read_document(arena, input->arguments, &arguments) &&
                    add_members(reads, out, input, arguments);
    arena_rewind(arena, mark);
    if (!is_whole)
        return false;
    out->hash = str_hash(str_of(out->text, out->bytes), map_seed());
    out->hash += out->hash == 0;
    return true;
}
