/* which tool for which question */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "llm/offline_internal.h"

/* ---- the prompt ---- */

void offline_say(struct offline_turn *turn, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    strbuf_vprintf(&turn->text, format, arguments);
    va_end(arguments);
}

/* The id is made of the place in the conversation, so it is the same when the turn is asked for
 * again. */
void offline_call(struct offline_turn *turn, str tool, str arguments)
{
    if (turn->call_count == OFFLINE_CALLS_MAX)
        return;
    turn->calls[turn->call_count] = (struct part){
        .kind = PART_TOOL_CALL,
        .call_id = str_printf(turn->arena, "call_offline_%zu_%zu", turn->prompt->message_count,
                              turn->call_count),
        .name = tool,
        .arguments = arguments,
    };
    turn->call_count++;
}

const struct tool_spec *offline_tool(const struct offline_turn *turn, str tool)
{
    if (str_equal(turn->prompt->tool_choice, S("none")))
        return NULL;
    for (size_t i = 0; i < turn->prompt->tool_count; i++) {
        if (str_equal(turn->prompt->tools[i].name, tool))
            return &turn->prompt->tools[i];
    }
    return NULL;
}

bool offline_has_tool(const struct offline_turn *turn, str tool)
{
    return offline_tool(turn, tool) != NULL;
}

static str canonical(struct arena *arena, str text)
{
    const struct json *tree;
    struct error ignored = {0};
    if (!json_parse(arena, text, (struct json_limits){.allow_duplicates = true}, &tree, &ignored))
        return text;
    return json_canonical(arena, tree);
}

static const struct part *find_answer(const struct prompt *prompt, size_t since, str call_id)
{
    for (size_t i = since; i < prompt->message_count; i++) {
        for (size_t k = 0; k < prompt->messages[i].part_count; k++) {
            const struct part *part = &prompt->messages[i].parts[k];
            if (part->kind == PART_TOOL_RESULT && str_equal(part->call_id, call_id))
                return part;
        }
    }
    return NULL;
}

const struct part *offline_find_result(const struct offline_turn *turn, str tool, str arguments,
                                       size_t since)
{
    str wanted = canonical(turn->arena, arguments);
    for (size_t i = turn->prompt->message_count; i-- > since;) {
        const struct prompt_message *message = &turn->prompt->messages[i];
        for (size_t k = 0; k < message->part_count; k++) {
            const struct part *part = &message->parts[k];
            if (part->kind != PART_TOOL_CALL || !str_equal(part->name, tool) ||
                !str_equal(canonical(turn->arena, part->arguments), wanted))
                continue;
            const struct part *answer = find_answer(turn->prompt, i + 1, part->call_id);
            if (answer)
                return answer;
        }
    }
    return NULL;
}

size_t offline_last_user(const struct prompt *prompt)
{
    for (size_t i = prompt->message_count; i-- > 0;) {
        if (prompt->messages[i].role == ROLE_USER)
            return i;
    }
    return prompt->message_count;
}

/* ---- files of the session ---- */

static bool is_data_file(str name, str description)
{
    static const str endings[] = {S_INIT(".csv"), S_INIT(".tsv"), S_INIT(".json"), S_INIT(".jsonl"),
                                  S_INIT(".ndjson")};
    for (size_t i = 0; i < ARRAY_COUNT(endings); i++) {
        if (str_ends_with(name, endings[i]))
            return true;
    }
    return str_find(description, S("csv")) != STR_NOT_FOUND ||
           str_find(description, S("json")) != STR_NOT_FOUND;
}

static int file_score(struct arena *arena, str name, str question)
{
    struct words asked = offline_words(arena, question), words = offline_words(arena, name);
    if (str_find(question, name) != STR_NOT_FOUND)
        return 1000;
    int score = 0;
    for (size_t i = 0; i < words.count; i++) {
        for (size_t k = 0; k < asked.count; k++)
            score += offline_is_stop_word(words.items[i].text)
                         ? 0
                         : offline_word_match(&words.items[i], &asked.items[k]);
    }
    return score;
}

/* "name (123 bytes, text/csv), other (5 bytes, text/plain)": the file that the question fits best;
 * the last of equals. */
static void choose_file(struct arena *arena, str list, str question, str *best, int *best_score)
{
    size_t at;
    while ((at = str_find(list, S(" ("))) != STR_NOT_FOUND) {
        str name = str_trim(str_slice(list, 0, at)), description = STR_NONE;
        list = str_from(list, at + 2);
        size_t end = str_find_char(list, ')');
        if (end == STR_NOT_FOUND)
            return;
        description = str_slice(list, 0, end);
        list = str_from(list, end + 1);
        str_strip_prefix(list, S(","), &list);
        str_strip_prefix(name, S("- "), &name);
        int score = is_data_file(name, description) ? file_score(arena, name, question) : -1;
        if (name.len > 0 && score >= *best_score) {
            *best = name;
            *best_score = score;
        }
    }
}

static str find_file(const struct offline_turn *turn, str question)
{
    static const char marker[] = "Files in this session:";
    str best = STR_NONE;
    int score = 0;
    for (size_t i = 0; i < turn->prompt->message_count; i++) {
        const struct prompt_message *message = &turn->prompt->messages[i];
        if (message->role != ROLE_SYSTEM)
            continue;
        str text = prompt_message_text(turn->arena, message);
        size_t at;
        while ((at = str_find(text, S("Files in this session:"))) != STR_NOT_FOUND) {
            text = str_from(text, at + sizeof marker - 1);
            size_t end = str_find(text, S("\n\n"));
            choose_file(turn->arena, end == STR_NOT_FOUND ? text : str_slice(text, 0, end),
                        question, &best, &score);
        }
    }
    return best;
}

/* ---- data ---- */

static bool is_failed(struct offline_turn *turn, const struct part *result, str file)
{
    if (!result->is_error)
        return false;
    offline_say(turn,
                "I could not look into " STR_FMT
                ": the call of data_analysis failed. It said: " STR_FMT,
                STR_ARG(file), STR_ARG(str_cut_utf8(result->text, 400)));
    return true;
}

static str values_arguments(struct arena *arena, str file, str column)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 64 << 10);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("file"), file);
    json_key(&w, S("steps"));
    json_array_begin(&w);
    json_object_begin(&w);
    json_put_str(&w, S("group_by"), column);
    json_put_raw(&w, S("aggregate"), S("[{\"op\":\"count\"}]"));
    json_object_end(&w);
    json_object_begin(&w);
    json_put_i64(&w, S("limit"), OFFLINE_VALUES_MAX);
    json_object_end(&w);
    json_array_end(&w);
    json_object_end(&w);
    return strbuf_str(&text);
}

static bool has_open_words(const struct words *words)
{
    for (size_t i = 0; i < words->count; i++) {
        const struct word *word = &words->items[i];
        if (!word->is_used && !word->is_number && word->text.len > 1 &&
            !offline_is_stop_word(word->text))
            return true;
    }
    return false;
}

/* Words left over may be values of a category ("rainy days"): the values are looked up, all columns
 * at once. */
static bool plan_values(struct offline_turn *turn, const struct table *table, struct words *words,
                        struct analysis *analysis)
{
    size_t lookups = 0;
    if (analysis->is_overview && !has_open_words(words))
        return true;
    for (size_t i = 0; i < table->count && lookups < OFFLINE_LOOKUPS_MAX && has_open_words(words);
         i++) {
        const struct column *column = &table->columns[i];
        if (!column->is_category || column->distinct < 2 || column->distinct > OFFLINE_VALUES_MAX)
            continue;
        lookups++;
        str arguments = values_arguments(turn->arena, table->file, column->name);
        const struct part *part = offline_find_result(turn, S("data_analysis"), arguments, 0);
        struct analysis_result values;
        if (!part)
            offline_call(turn, S("data_analysis"), arguments);
        else if (offline_read_result(turn->arena, part, &values))
            offline_plan_value(analysis, column, &values, words, turn->arena);
    }
    return turn->call_count == 0;
}

bool offline_analyse(struct offline_turn *turn, str question, size_t since)
{
    struct arena *arena = turn->arena;
    str file = find_file(turn, question);
    if (file.len == 0 || !offline_has_tool(turn, S("data_analysis")))
        return false;
    struct table table;
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 64 << 10);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("file"), file);
    json_put_raw(&w, S("steps"), S("[{\"describe\":true}]"));
    json_object_end(&w);
    const struct part *describe =
        offline_find_result(turn, S("data_analysis"), strbuf_str(&text), 0);
    if (describe && describe->is_error &&
        offline_find_result(turn, S("data_analysis"), strbuf_str(&text), since) == NULL)
        describe = NULL; /* it failed for an earlier question: try again */
    if (!describe) {
        offline_say(turn, "first I look at the columns of " STR_FMT ".", STR_ARG(file));
        offline_call(turn, S("data_analysis"), strbuf_str(&text));
        return true;
    }
    if (is_failed(turn, describe, file))
        return true;
    if (!offline_read_table(arena, file, describe, &table)) {
        offline_say(turn, "the description of " STR_FMT " is no table that I can read.",
                    STR_ARG(file));
        return true;
    }
    struct words words = offline_words(arena, question);
    struct analysis *analysis = ARENA_NEW(arena, struct analysis);
    offline_plan(&table, &words, analysis);
    if (!plan_values(turn, &table, &words, analysis)) {
        offline_say(turn, "now I look up the values that the question may name.");
        return true;
    }
    if (analysis->is_overview && analysis->filter_count > 0) /* "how is it on rainy days?" */
        analysis->is_overview = false;
    for (size_t i = 0; i < analysis->filter_count; i++) { /* "compare rain and snow" */
        if (analysis->filters[i].value_count > 1 && !analysis->group && !analysis->is_rows)
            analysis->group = analysis->filters[i].column;
    }
    str arguments = offline_arguments(arena, analysis);
    const struct part *result = offline_find_result(turn, S("data_analysis"), arguments, since);
    if (result) {
        offline_tell_result(turn, analysis, result);
    } else {
        offline_say(turn, "I know the columns; now I compute the answer.");
        offline_call(turn, S("data_analysis"), arguments);
    }
    return true;
}

/* ---- the other tools ---- */

/* Makes the call, or gives its result when it was made for this question. */
static const struct part *call_once(struct offline_turn *turn, str tool, str arguments,
                                    size_t since)
{
    const struct part *result = offline_find_result(turn, tool, arguments, since);
    if (!result) {
        offline_say(turn, "I call the tool " STR_FMT ".", STR_ARG(tool));
        offline_call(turn, tool, arguments);
        return NULL;
    }
    if (result->is_error) {
        offline_say(turn, "the call of " STR_FMT " failed. It said: " STR_FMT, STR_ARG(tool),
                    STR_ARG(str_cut_utf8(result->text, 400)));
        return NULL;
    }
    return result;
}

static const struct json *read_output(struct offline_turn *turn, const struct part *result)
{
    const struct json *tree = NULL;
    struct error ignored = {0};
    if (!json_parse(turn->arena, result->text, (struct json_limits){.allow_duplicates = true},
                    &tree, &ignored))
        return NULL;
    return json_type(json_get(tree, S("output"))) == JSON_OBJECT ? json_get(tree, S("output"))
                                                                 : tree;
}

static void cite(struct offline_turn *turn, const struct part *result, str tool)
{
    offline_say(turn,
                "\nThis is copied from the result of the tool call " STR_FMT " (" STR_FMT ").",
                STR_ARG(result->call_id), STR_ARG(tool));
}

static str member(struct arena *arena, const char *key, str value)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, JSON_BYTES_MAX);
    json_writer_init(&w, &text);
    json_write_str(&w, value);
    return str_printf(arena, "\"%s\":" STR_FMT, key, STR_ARG(strbuf_str(&text)));
}

static bool is_url_end(char c)
{
    return (unsigned char) c <= ' ' || c == '"' || c == '\'' || c == '<' || c == '>' || c == '`' ||
           c == ')';
}

static bool answer_url(struct offline_turn *turn, str question, size_t since)
{
    size_t at = str_find(question, S("http://")), secure = str_find(question, S("https://"));
    if (secure < at)
        at = secure;
    if (at == STR_NOT_FOUND || !offline_has_tool(turn, S("http_request")))
        return false;
    size_t end = at;
    while (end < question.len && !is_url_end(question.ptr[end]))
        end++;
    while (end > at && strchr(".,;:?!", question.ptr[end - 1]))
        end--;
    str url = str_slice(question, at, end);
    str arguments = str_printf(turn->arena, "{\"method\":\"GET\"," STR_FMT "}",
                               STR_ARG(member(turn->arena, "url", url)));
    const struct part *result = call_once(turn, S("http_request"), arguments, since);
    if (!result)
        return true;
    const struct json *output = read_output(turn, result);
    str body = json_str_or(output, S("body"), STR_NONE);
    offline_say(turn, STR_FMT " answered with status %lld. Its body begins: " STR_FMT, STR_ARG(url),
                (long long) json_i64_or(output, S("status"), 0), STR_ARG(str_cut_utf8(body, 400)));
    cite(turn, result, S("http_request"));
    return true;
}

static bool has_word(const struct words *words, const char *text)
{
    for (size_t i = 0; i < words->count; i++) {
        if (str_equal(words->items[i].text, str_from_cstr(text)))
            return true;
    }
    return false;
}

static bool answer_time(struct offline_turn *turn, const struct words *words, size_t since)
{
    bool names_time = has_word(words, "time") || has_word(words, "date") || has_word(words, "day");
    bool names_now = has_word(words, "now") || has_word(words, "today") ||
                     has_word(words, "current") || has_word(words, "it");
    bool asks = words->count <= 12 && names_time && names_now;
    if (!asks || !offline_has_tool(turn, S("time")))
        return false;
    const struct part *result = call_once(turn, S("time"), S("{\"operation\":\"now\"}"), since);
    if (!result)
        return true;
    const struct json *output = read_output(turn, result);
    offline_say(turn, "it is " STR_FMT " (" STR_FMT ").",
                STR_ARG(json_str_or(output, S("time"), S("unknown"))),
                STR_ARG(json_str_or(output, S("weekday"), S("UTC"))));
    cite(turn, result, S("time"));
    return true;
}

/* ---- arithmetic and code ---- */

static bool is_expression_char(char c)
{
    return (c >= '0' && c <= '9') || strchr("+-*/().%^ ", c) != NULL;
}

/* The longest stretch of digits, operators and brackets with at least one operator between numbers.
 * */
static str find_expression(str text)
{
    str best = STR_NONE;
    for (size_t at = 0; at < text.len;) {
        size_t end = at, digits = 0, operators = 0;
        while (end < text.len && text.ptr[end] && is_expression_char(text.ptr[end])) {
            digits += text.ptr[end] >= '0' && text.ptr[end] <= '9';
            operators += digits > 0 && strchr("+-*/%^", text.ptr[end]) != NULL;
            end++;
        }
        str piece = str_trim(str_slice(text, at, end));
        while (piece.len > 0 && strchr(".+-*/%^( ", piece.ptr[piece.len - 1]))
            piece.len--;
        if (digits > 1 && operators > 0 && piece.len > best.len)
            best = piece;
        at = end > at ? end : at + 1;
    }
    return best;
}

static str javascript_of_expression(struct arena *arena, str expression)
{
    struct strbuf code;
    strbuf_init(&code, arena, 64 << 10);
    strbuf_add(&code, S("const result = "));
    for (size_t i = 0; i < expression.len; i++) {
        if (expression.ptr[i] == '^')
            strbuf_add(&code, S("**"));
        else
            strbuf_add_char(&code, expression.ptr[i]);
    }
    strbuf_add(&code, S(";"));
    return strbuf_str(&code);
}

static double last_number(const struct words *words, double otherwise)
{
    for (size_t i = words->count; i-- > 0;) {
        if (words->items[i].is_number)
            return words->items[i].number;
    }
    return otherwise;
}

/* A few computations by name; n is the number in the question. */
static str known_code(struct arena *arena, const struct words *words)
{
    static const struct {
        const char *word, *code;
    } known[] = {
        {"factorial",
         "let p = 1n; for (let i = 2n; i <= %lldn; i++) p *= i; const result = p.toString();"},
        {"fibonacci", "let a = 0n, b = 1n; for (let i = 0; i < %lld; i++) [a, b] = [b, a + b]; "
                      "const result = a.toString();"},
        {"primes", "const result = []; for (let i = 2; result.length < %lld; i++) if "
                   "(result.every(p => i %% p)) result.push(i);"},
        {"prime", "const n = %lld; let result = n > 1; for (let i = 2; i * i <= n; i++) if (n %% i "
                  "=== 0) result = false;"},
    };
    double n = last_number(words, 10);
    if (!(n >= 0 && n <= 10000000))
        return STR_NONE;
    for (size_t i = 0; i < ARRAY_COUNT(known); i++) {
        if (!has_word(words, known[i].word))
            continue;
        struct strbuf code;
        strbuf_init(&code, arena, 4096);
        str text = str_from_cstr(known[i].code);
        size_t at = str_find(text, S("%lld"));
        strbuf_add(&code, str_slice(text, 0, at));
        strbuf_add_i64(&code, (int64_t) n);
        for (size_t k = at + 4; k < text.len; k++) {
            strbuf_add_char(&code, text.ptr[k]);
            k += text.ptr[k] == '%' && k + 1 < text.len && text.ptr[k + 1] == '%';
        }
        return strbuf_str(&code);
    }
    return STR_NONE;
}

/* A block between ``` lines is run as it is. */
static str fenced_code(str question, str *language)
{
    size_t begin = str_find(question, S("```"));
    if (begin == STR_NOT_FOUND)
        return STR_NONE;
    str rest = str_from(question, begin + 3);
    size_t line = str_find_char(rest, '\n');
    size_t end = str_find(rest, S("```"));
    if (line == STR_NOT_FOUND || end == STR_NOT_FOUND || end < line)
        return STR_NONE;
    str tag = str_trim(str_slice(rest, 0, line));
    *language =
        str_equal(tag, S("python")) || str_equal(tag, S("py")) ? S("python") : S("javascript");
    return str_slice(rest, line + 1, end);
}

static bool answer_code(struct offline_turn *turn, str question, const struct words *words,
                        size_t since)
{
    str language = S("javascript"), code = fenced_code(question, &language);
    str expression = find_expression(question);
    if (!offline_has_tool(turn, S("code_execution")))
        return false;
    if (code.len == 0)
        code = known_code(turn->arena, words);
    if (code.len == 0 && expression.len > 0)
        code = javascript_of_expression(turn->arena, expression);
    if (code.len == 0)
        return false;
    str arguments = str_printf(turn->arena, "{" STR_FMT "," STR_FMT "}",
                               STR_ARG(member(turn->arena, "language", language)),
                               STR_ARG(member(turn->arena, "code", code)));
    const struct part *result = call_once(turn, S("code_execution"), arguments, since);
    if (!result)
        return true;
    const struct json *output = read_output(turn, result);
    const struct json *value = json_get(output, S("result"));
    str standard = json_str_or(output, S("stdout"), STR_NONE),
        errors = json_str_or(output, S("stderr"), STR_NONE);
    if (value)
        offline_say(turn, "the result is " STR_FMT ".",
                    STR_ARG(str_cut_utf8(json_print(turn->arena, value), 4000)));
    if (standard.len > 0)
        offline_say(turn, "%sIt printed: " STR_FMT, value ? "\n" : "",
                    STR_ARG(str_cut_utf8(standard, 2000)));
    if (errors.len > 0)
        offline_say(turn, "\nIts errors: " STR_FMT, STR_ARG(str_cut_utf8(errors, 2000)));
    cite(turn, result, S("code_execution"));
    return true;
}

/* ---- texts ---- */

/* What stands in quotes, else what follows the first colon. */
static str quoted_text(str question)
{
    static const struct {
        str open, close;
    } quotes[] = {{S_INIT("\""), S_INIT("\"")},
                  {S_INIT("\xe2\x80\x9c"), S_INIT("\xe2\x80\x9d")},
                  {S_INIT(" '"), S_INIT("'")}};
    for (size_t i = 0; i < ARRAY_COUNT(quotes); i++) {
        size_t begin = str_find(question, quotes[i].open);
        if (begin == STR_NOT_FOUND)
            continue;
        str rest = str_from(question, begin + quotes[i].open.len);
        for (size_t end = rest.len; end-- > 0;) { /* the last one: a text may hold quotes */
            if (str_starts_with(str_from(rest, end), quotes[i].close))
                return str_slice(rest, 0, end);
        }
    }
    size_t colon = str_find_char(question, ':');
    return colon == STR_NOT_FOUND ? STR_NONE : str_trim(str_from(question, colon + 1));
}

static str text_operation(const struct words *words, const char **kind)
{
    static const struct {
        const char *word, *operation, *kind;
    } all[] = {
        {"emails", "extract", "emails"}, {"email", "extract", "emails"},
        {"urls", "extract", "urls"},     {"links", "extract", "urls"},
        {"dates", "extract", "dates"},   {"numbers", "extract", "numbers"},
        {"uppercase", "upper", NULL},    {"upper", "upper", NULL},
        {"lowercase", "lower", NULL},    {"lower", "lower", NULL},
        {"slug", "slugify", NULL},       {"slugify", "slugify", NULL},
        {"trim", "trim", NULL},          {"title", "title", NULL},
        {"words", "count", NULL},        {"characters", "count", NULL},
        {"lines", "count", NULL},        {"sentences", "count", NULL},
        {"letters", "count", NULL},
    };
    for (size_t i = 0; i < ARRAY_COUNT(all); i++) {
        if (has_word(words, all[i].word)) {
            *kind = all[i].kind;
            return str_from_cstr(all[i].operation);
        }
    }
    return STR_NONE;
}

static bool answer_text(struct offline_turn *turn, str question, const struct words *words,
                        size_t since)
{
    const char *kind = NULL;
    str operation = text_operation(words, &kind), text = quoted_text(question);
    if (operation.len == 0 || text.len == 0 || !offline_has_tool(turn, S("text_processing")))
        return false;
    str arguments = str_printf(turn->arena, "{" STR_FMT "," STR_FMT "%s%s%s}",
                               STR_ARG(member(turn->arena, "operation", operation)),
                               STR_ARG(member(turn->arena, "text", text)),
                               kind ? ",\"kind\":\"" : "", kind ? kind : "", kind ? "\"" : "");
    const struct part *result = call_once(turn, S("text_processing"), arguments, since);
    if (!result)
        return true;
    offline_say(turn, "text_processing gives: " STR_FMT, STR_ARG(str_cut_utf8(result->text, 2000)));
    cite(turn, result, S("text_processing"));
    return true;
}

/* ---- all together ---- */

static void answer_plainly(struct offline_turn *turn)
{
    offline_say(turn, "no language model is connected, so I cannot answer this. I can compute "
                      "figures from a CSV or JSON file of "
                      "the session (\"which X has the highest average Y?\"), do arithmetic, run "
                      "JavaScript, tell the time, fetch "
                      "an allowed URL and count words. To get real answers set OPENAI_API_KEY or "
                      "configure a provider.");
}

void offline_decide(struct offline_turn *turn)
{
    const struct prompt *prompt = turn->prompt;
    size_t since = offline_last_user(prompt);
    if (since == prompt->message_count) {
        answer_plainly(turn);
        return;
    }
    str question = prompt_message_text(turn->arena, &prompt->messages[since]);
    struct words words = offline_words(turn->arena, str_cut_utf8(question, 16 << 10));
    str language;
    bool is_code = fenced_code(question, &language).len > 0 ||
                   (find_expression(question).len > 0 && !has_open_words(&words));
    if (answer_url(turn, question, since) ||
        (is_code && answer_code(turn, question, &words, since)) ||
        answer_text(turn, question, &words, since) || answer_time(turn, &words, since) ||
        offline_analyse(turn, question, since) || answer_code(turn, question, &words, since))
        return;
    answer_plainly(turn);
}
