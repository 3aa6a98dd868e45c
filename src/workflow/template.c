/*
 * A tree of templates is compiled to a flat list of actions in document order, which is the order in which the filled tree is built.
 * What holds no ${...} is one action, however large: its values are copied, its texts are shared; and a template without any is its tree.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "workflow/expression_internal.h"

enum action_kind {
    ACTION_TREE,       /* `tree` as it is */
    ACTION_EXPRESSION, /* "${...}" alone: the value */
    ACTION_TEXT,       /* pieces, joined */
    ACTION_OPEN_MAP,
    ACTION_CLOSE_MAP,
    ACTION_OPEN_LIST,
    ACTION_CLOSE_LIST,
};
struct piece {
    str text; /* when there is no expression */
    const struct expression *expression;
};
struct action {
    enum action_kind kind;
    str key; /* of a map's member */
    bool has_key;
    const struct json *tree;
    const struct expression *expression;
    const struct piece *pieces;
    size_t piece_count;
    str path; /* JSON Pointer of the string, for messages */
};
struct template
{
    struct action *actions;
    size_t count, capacity;
};

/* ---- compiling ---- */

struct compiler {
    struct arena *arena;
    struct template *out;
    struct strbuf path;
    struct error *e;
};

static bool has_expressions(const struct json *tree)
{
    struct json_iter it = json_iter(tree);
    const struct json *item;
    str text;
    if (json_to_str(tree, &text))
        return str_find(text, S("${")) != STR_NOT_FOUND;
    while (json_next(&it, NULL, &item)) {
        if (has_expressions(item))
            return true;
    }
    return false;
}

static struct action *add_action(struct compiler *c, enum action_kind kind, const str *key)
{
    struct template *out = c->out;
    if (out->count == out->capacity) {
        size_t capacity = out->capacity ? out->capacity * 2 : 4;
        out->actions = arena_grow(c->arena, out->actions, out->capacity * sizeof *out->actions,
                                  capacity * sizeof *out->actions);
        out->capacity = capacity;
    }
    struct action *action = out->actions + out->count++;
    *action = (struct action){.kind = kind, .key = key ? *key : STR_NONE, .has_key = key != NULL};
    return action;
}

/* The next "${", or one that a dollar before it makes literal; the length when there is none. */
static size_t next_mark(str text, size_t from, bool *is_literal)
{
    size_t at = from + str_find(str_from(text, from), S("${"));
    *is_literal = false;
    if (str_find(str_from(text, from), S("${")) == STR_NOT_FOUND)
        return text.len;
    *is_literal = at > from && text.ptr[at - 1] == '$';
    return at;
}

static bool fail_template(struct compiler *c)
{
    str path = strbuf_str(&c->path);
    return path.len == 0 ? false : error_wrap(c->e, "at " STR_FMT, STR_ARG(str_cut_utf8(path, 80)));
}

struct pieces {
    struct piece *items;
    size_t count, capacity;
};

static void add_piece(struct compiler *c, struct pieces *pieces, struct piece piece)
{
    if (!piece.expression && piece.text.len == 0)
        return;
    if (pieces->count == pieces->capacity) {
        size_t capacity = pieces->capacity ? pieces->capacity * 2 : 4;
        pieces->items = arena_grow(c->arena, pieces->items, pieces->capacity * sizeof piece,
                                   capacity * sizeof piece);
        pieces->capacity = capacity;
    }
    pieces->items[pieces->count++] = piece;
}

static bool cut_pieces(struct compiler *c, str text, struct pieces *pieces)
{
    for (size_t from = 0; from < text.len;) {
        struct expression *expression = NULL;
        bool is_literal;
        size_t mark = next_mark(text, from, &is_literal), end;
        if (is_literal) { /* "$${": the first dollar goes */
            add_piece(c, pieces, (struct piece){.text = str_slice(text, from, mark - 1)});
            add_piece(c, pieces, (struct piece){.text = str_slice(text, mark, mark + 2)});
            from = mark + 2;
            continue;
        }
        add_piece(c, pieces, (struct piece){.text = str_slice(text, from, mark)});
        if (mark == text.len)
            return true;
        if (!expression_compile(c->arena, text, mark + 2, true, &expression, &end, c->e))
            return false;
        add_piece(c, pieces, (struct piece){.expression = expression});
        from = end + 1;
    }
    return true;
}

static bool compile_text(struct compiler *c, str text, const str *key)
{
    struct pieces pieces = {0};
    if (!cut_pieces(c, text, &pieces))
        return fail_template(c);
    bool is_whole = pieces.count == 1 && pieces.items[0].expression;
    struct action *action = add_action(c, is_whole ? ACTION_EXPRESSION : ACTION_TEXT, key);
    action->path = str_copy(c->arena, strbuf_str(&c->path));
    action->expression = is_whole ? pieces.items[0].expression : NULL;
    action->pieces = pieces.items;
    action->piece_count = pieces.count;
    return true;
}

static void add_to_path(struct strbuf *path, str key, size_t index, bool is_map)
{
    strbuf_add_char(path, '/');
    if (!is_map)
        strbuf_add_u64(path, index);
    for (size_t i = 0; is_map && i < key.len; i++) {
        if (key.ptr[i] == '~' || key.ptr[i] == '/')
            strbuf_add(path, key.ptr[i] == '~' ? S("~0") : S("~1"));
        else
            strbuf_add_char(path, key.ptr[i]);
    }
}

/* As deep as the tree is: JSON_DEPTH_MAX. */
static bool compile_tree(struct compiler *c, const struct json *tree, const str *key)
{
    struct json_iter it = json_iter(tree);
    bool is_map = json_type(tree) == JSON_OBJECT;
    const struct json *item;
    str text, name;
    if (!has_expressions(tree)) {
        add_action(c, ACTION_TREE, key)->tree = tree;
        return true;
    }
    if (json_to_str(tree, &text))
        return compile_text(c, text, key);
    add_action(c, is_map ? ACTION_OPEN_MAP : ACTION_OPEN_LIST, key);
    while (json_next(&it, &name, &item)) {
        size_t path_end = c->path.len;
        add_to_path(&c->path, name, it.index - 1, is_map);
        if (!compile_tree(c, item, is_map ? &name : NULL))
            return false;
        strbuf_truncate(&c->path, path_end);
    }
    add_action(c, is_map ? ACTION_CLOSE_MAP : ACTION_CLOSE_LIST, NULL);
    return true;
}

bool template_parse(struct arena *arena, const struct json *tree, struct template **out,
                    struct error *e)
{
    enum { PATH_BYTES_MAX = 4096 };
    struct template *template = ARENA_NEW(arena, struct template);
    struct compiler compiler = {.arena = arena, .out = template, .e = e};
    strbuf_init(&compiler.path, arena, PATH_BYTES_MAX);
    if (!compile_tree(&compiler, tree, NULL))
        return false;
    *out = template;
    return true;
}

/* ---- asking ---- */

static void each_expression(const struct template *tree,
                            void (*visit)(const struct expression *, void *), void *owner)
{
    for (size_t i = 0; i < tree->count; i++) {
        const struct action *action = tree->actions + i;
        if (action->expression)
            visit(action->expression, owner);
        for (size_t k = 0; !action->expression && k < action->piece_count; k++) {
            if (action->pieces[k].expression)
                visit(action->pieces[k].expression, owner);
        }
    }
}

struct visitor {
    void (*visit)(void *owner, str name);
    void *owner;
};

static void visit_steps(const struct expression *expression, void *visitor)
{
    const struct visitor *v = visitor;
    expression_each_step(expression, v->visit, v->owner);
}

void template_each_step(const struct template *tree, void (*visit)(void *owner, str step_id),
                        void *owner)
{
    struct visitor visitor = {visit, owner};
    each_expression(tree, visit_steps, &visitor);
}

static void visit_variables(const struct expression *expression, void *visitor)
{
    const struct visitor *v = visitor;
    expression_each_variable(expression, v->visit, v->owner);
}

void template_each_variable(const struct template *tree, void (*visit)(void *owner, str name),
                            void *owner)
{
    struct visitor visitor = {visit, owner};
    each_expression(tree, visit_variables, &visitor);
}

/* ---- filling ---- */

static bool fill_text(const struct action *action, const struct expression_scope *scope,
                      struct work *work, struct value *out, struct error *e)
{
    struct strbuf text;
    strbuf_init(&text, work->arena, EXPRESSION_VALUE_BYTES_MAX);
    for (size_t i = 0; i < action->piece_count; i++) {
        const struct piece *piece = action->pieces + i;
        struct value value = value_of_text(piece->text);
        str part;
        if ((piece->expression && !expression_run(piece->expression, scope, work, &value, e)) ||
            !value_text(work, &value, &part, e) || !work_take(work, 1, part.len, e))
            return false;
        strbuf_add(&text, part);
    }
    if (strbuf_is_over(&text))
        return error_set(e, REASON_LIMIT, "a text of more than %u bytes",
                         EXPRESSION_VALUE_BYTES_MAX);
    *out = value_of_text(strbuf_str(&text));
    return true;
}

static bool fill_value(const struct action *action, const struct expression_scope *scope,
                       struct work *work, struct value *out, struct error *e)
{
    bool ok = true;
    if (action->kind == ACTION_TREE)
        *out = value_of_tree(action->tree);
    else if (action->kind == ACTION_EXPRESSION)
        ok = expression_run(action->expression, scope, work, out, e);
    else
        ok = fill_text(action, scope, work, out, e);
    if (!ok && action->path.len > 0)
        return error_wrap(e, "at " STR_FMT, STR_ARG(str_cut_utf8(action->path, 80)));
    return ok;
}

static bool fill_action(const struct action *action, const struct expression_scope *scope,
                        struct work *work, struct json_builder *b, struct error *e)
{
    struct value value;
    if (action->has_key)
        json_build_key(b, action->key);
    switch (action->kind) {
    case ACTION_OPEN_MAP: json_build_object_begin(b); return true;
    case ACTION_CLOSE_MAP: json_build_object_end(b); return true;
    case ACTION_OPEN_LIST: json_build_array_begin(b); return true;
    case ACTION_CLOSE_LIST: json_build_array_end(b); return true;
    case ACTION_TREE:
    case ACTION_EXPRESSION:
    case ACTION_TEXT: break;
    }
    if (!fill_value(action, scope, work, &value, e))
        return false;
    size_t bytes = value.tree ? json_value_count(value.tree) * 16 : 16;
    if (!work_take(work, 1, bytes, e))
        return false;
    value_build(b, &value);
    return true;
}

bool template_fill(const struct template *tree, const struct expression_scope *scope,
                   struct arena *arena, const struct json **out, struct error *e)
{
    WORK(work, arena);
    struct value value;
    struct json_builder b;
    if (tree->count == 1) { /* a constant tree or a lone value of the scope is passed on as it is */
        if (!fill_value(tree->actions, scope, &work, &value, e))
            return false;
        if (value.tree) {
            *out = value.tree;
            return true;
        }
        json_builder_init(&b, arena, 1);
        value_build(&b, &value);
        *out = json_build_finish(&b);
        return true;
    }
    json_builder_init(&b, arena, EXPRESSION_VALUES_MAX);
    for (size_t i = 0; i < tree->count; i++) {
        if (!fill_action(tree->actions + i, scope, &work, &b, e))
            return false;
    }
    return work_finish(&work, &b, out, e);
}
