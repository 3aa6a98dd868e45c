#include "javascript.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"
#include "utf8.h"

enum {
    CODE_STACK_BYTES =
        256 * 1024, /* of the C stack; the host's own stack then holds about 1.6 MiB */
    RESERVE_BYTES =
        1024 * 1024, /* kept for writing the answer when the script has used up the memory */
    CAPTURE_FIRST_BYTES = 256,
};

struct timer {
    int64_t id;
    double due_ms, interval_ms;
    bool repeats;
    JSValue function;
};

struct rejection {
    JSValue promise, reason;
};

struct sandbox {
    JSRuntime *runtime;
    JSContext *ctx;
    struct script_outcome *outcome;
    yyjson_mut_doc *doc;
    struct timer timers[TIMERS_MAX]; /* in order of creation */
    size_t timer_count;
    int64_t next_timer;
    double now_ms;
    struct rejection rejections[REJECTIONS_MAX];
    size_t rejection_count;
};

/* ---- output ------------------------------------------------------------------------------------- */

void capture_add(struct capture *capture, const char *ptr, size_t len)
{
    size_t room = capture->max - capture->len;
    size_t taken = len < room ? len : room;
    capture->dropped += len - taken;
    if (capture->len + taken > capture->capacity) {
        size_t wanted = capture->capacity * 2 + CAPTURE_FIRST_BYTES;
        if (wanted < capture->len + taken)
            wanted = capture->len + taken;
        char *grown = realloc(capture->bytes, wanted);
        if (grown == NULL) {
            capture->dropped += taken;
            return;
        }
        capture->bytes = grown;
        capture->capacity = wanted;
    }
    if (taken > 0)
        memcpy(capture->bytes + capture->len, ptr, taken);
    capture->len += taken;
}

static void capture_string(struct capture *capture, const char *string)
{
    capture_add(capture, string, strlen(string));
}

static bool capture_value(struct sandbox *box, struct capture *capture, JSValueConst value)
{
    size_t len;
    const char *string = JS_ToCStringLen(box->ctx, &len, value);
    if (string == NULL)
        return false;
    capture_add(capture, string, len);
    JS_FreeCString(box->ctx, string);
    return true;
}

/* "TypeError: message" and the stack, which names the user's own lines. */
static void capture_error(struct sandbox *box, JSValueConst error)
{
    struct capture *err = &box->outcome->err;
    if (!capture_value(box, err, error)) {
        JS_FreeValue(box->ctx, JS_GetException(box->ctx));
        capture_string(err, "an exception that cannot be shown");
    }
    capture_string(err, "\n");
    if (!JS_IsError(error))
        return;
    JSValue stack = JS_GetPropertyStr(box->ctx, error, "stack");
    if (JS_IsString(stack))
        capture_value(box, err, stack);
    JS_FreeValue(box->ctx, stack);
}

static void report_exception(struct sandbox *box)
{
    JSValue error = JS_GetException(box->ctx);
    capture_string(&box->outcome->err, "Uncaught ");
    capture_error(box, error);
    JS_FreeValue(box->ctx, error);
    box->outcome->exit_code = 1;
}

static struct sandbox *sandbox_of(JSContext *ctx)
{
    return JS_GetContextOpaque(ctx);
}

/* Strings as they are, errors with their stack, other objects as JSON, the rest as String() shows them. */
static bool print_value(struct sandbox *box, struct capture *capture, JSValueConst value)
{
    JSContext *ctx = box->ctx;
    if (!JS_IsObject(value) || JS_IsFunction(ctx, value)) {
        if (JS_IsSymbol(value)) {
            capture_string(capture, "Symbol()");
            return true;
        }
        return capture_value(box, capture, value);
    }
    if (JS_IsError(value)) {
        JSValue stack = JS_GetPropertyStr(ctx, value, "stack");
        bool ok = capture_value(box, capture, value);
        capture_string(capture, "\n");
        ok = ok && (!JS_IsString(stack) || capture_value(box, capture, stack));
        JS_FreeValue(ctx, stack);
        return ok;
    }
    JSValue json = JS_JSONStringify(ctx, value, JS_UNDEFINED, JS_UNDEFINED);
    if (JS_IsException(json)) { /* a cycle or a BigInt */
        JS_FreeValue(ctx, JS_GetException(ctx));
        return capture_value(box, capture, value);
    }
    bool ok = capture_value(box, capture, JS_IsUndefined(json) ? value : json);
    JS_FreeValue(ctx, json);
    return ok;
}

static JSValue console_print(JSContext *ctx, JSValueConst self, int count, JSValueConst *values,
                             int is_error)
{
    (void) self;
    struct sandbox *box = sandbox_of(ctx);
    struct capture *capture = is_error ? &box->outcome->err : &box->outcome->out;
    for (int i = 0; i < count; i++) {
        if (i > 0)
            capture_string(capture, " ");
        if (!print_value(box, capture, values[i]))
            return JS_EXCEPTION;
    }
    capture_string(capture, "\n");
    return JS_UNDEFINED;
}

/* ---- timers ------------------------------------------------------------------------------------- */

static JSValue timer_set(JSContext *ctx, JSValueConst self, int count, JSValueConst *values,
                         int repeats)
{
    (void) self;
    struct sandbox *box = sandbox_of(ctx);
    double delay = 0;
    if (count < 1 || !JS_IsFunction(ctx, values[0]))
        return JS_ThrowTypeError(ctx, "the first argument of a timer must be a function");
    if (count > 1 && JS_ToFloat64(ctx, &delay, values[1]) < 0)
        return JS_EXCEPTION;
    if (box->timer_count == TIMERS_MAX)
        return JS_ThrowRangeError(ctx, "more than %d timers are waiting", TIMERS_MAX);
    if (!(delay >= 1))
        delay = 1;
    box->timers[box->timer_count++] = (struct timer){
        .id = ++box->next_timer,
        .due_ms = box->now_ms + delay,
        .interval_ms = delay,
        .repeats = repeats,
        .function = JS_DupValue(ctx, values[0]),
    };
    return JS_NewInt64(ctx, box->next_timer);
}

static void timer_remove(struct sandbox *box, size_t index)
{
    JSValue function = box->timers[index].function;
    box->timer_count--;
    memmove(&box->timers[index], &box->timers[index + 1],
            (box->timer_count - index) * sizeof *box->timers);
    JS_FreeValue(box->ctx, function);
}

static JSValue timer_clear(JSContext *ctx, JSValueConst self, int count, JSValueConst *values)
{
    (void) self;
    struct sandbox *box = sandbox_of(ctx);
    int64_t id = 0;
    if (count > 0 && JS_IsNumber(values[0]) && JS_ToInt64(ctx, &id, values[0]) < 0)
        return JS_EXCEPTION;
    for (size_t i = 0; i < box->timer_count; i++)
        if (box->timers[i].id == id) {
            timer_remove(box, i);
            break;
        }
    return JS_UNDEFINED;
}

/* Fires the timer that is due first.  False: none is left, or its function threw. */
static bool timer_fire(struct sandbox *box)
{
    size_t first = 0;
    if (box->timer_count == 0)
        return false;
    for (size_t i = 1; i < box->timer_count; i++)
        if (box->timers[i].due_ms < box->timers[first].due_ms)
            first = i;
    struct timer *timer = &box->timers[first];
    if (timer->due_ms > box->now_ms)
        box->now_ms = timer->due_ms;
    JSValue function = JS_DupValue(box->ctx, timer->function);
    if (timer->repeats)
        timer->due_ms += timer->interval_ms;
    else
        timer_remove(box, first);
    JSValue returned = JS_Call(box->ctx, function, JS_UNDEFINED, 0, NULL);
    JS_FreeValue(box->ctx, function);
    if (JS_IsException(returned)) {
        report_exception(box);
        return false;
    }
    JS_FreeValue(box->ctx, returned);
    return true;
}

/* ---- promises ----------------------------------------------------------------------------------- */

static void track_rejection(JSContext *ctx, JSValueConst promise, JSValueConst reason,
                            bool is_handled, void *opaque)
{
    struct sandbox *box = opaque;
    void *object = JS_VALUE_GET_PTR(promise);
    if (!is_handled) {
        if (box->rejection_count < REJECTIONS_MAX)
            box->rejections[box->rejection_count++] =
                (struct rejection){JS_DupValue(ctx, promise), JS_DupValue(ctx, reason)};
        return;
    }
    for (size_t i = 0; i < box->rejection_count; i++)
        if (JS_VALUE_GET_PTR(box->rejections[i].promise) == object) {
            JS_FreeValue(ctx, box->rejections[i].promise);
            JS_FreeValue(ctx, box->rejections[i].reason);
            box->rejections[i] = box->rejections[--box->rejection_count];
            return;
        }
}

/* Runs jobs and timers until nothing is left to do or something threw. */
static void run_to_end(struct sandbox *box)
{
    do {
        JSContext *ctx;
        int status;
        while ((status = JS_ExecutePendingJob(box->runtime, &ctx)) > 0)
            ;
        if (status < 0) {
            report_exception(box);
            return;
        }
        if (box->rejection_count > 0)
            return; /* nobody handled it by the end of the jobs: the program ends, as in Node.js */
    } while (timer_fire(box));
}

static void settle(struct sandbox *box, JSValueConst promise)
{
    if (box->outcome->exit_code != 0)
        return;
    JSPromiseStateEnum state = JS_PromiseState(box->ctx, promise);
    if (state == JS_PROMISE_REJECTED) {
        JS_Throw(box->ctx, JS_PromiseResult(box->ctx, promise));
        report_exception(box);
    } else if (box->rejection_count > 0) {
        JS_Throw(box->ctx, JS_DupValue(box->ctx, box->rejections[0].reason));
        capture_string(&box->outcome->err, "(in promise) ");
        report_exception(box);
    } else if (state == JS_PROMISE_PENDING) {
        capture_string(&box->outcome->err,
                       "The script awaits a promise that nothing can settle any more.\n");
        box->outcome->exit_code = 1;
    }
}

/* ---- calls of other tools ----------------------------------------------------------------------- */

static JSValue throw_failure(JSContext *ctx, const struct tool_error *e)
{
    JSValue error = JS_NewError(ctx);
    JS_DefinePropertyValueStr(ctx, error, "message", JS_NewString(ctx, e->message),
                              JS_PROP_CONFIGURABLE | JS_PROP_WRITABLE);
    JS_DefinePropertyValueStr(ctx, error, "code", JS_NewString(ctx, e->code), JS_PROP_C_W_E);
    return JS_Throw(ctx, error);
}

/* The arguments as JSON, parsed again: what the host gets is what JSON.stringify makes of them. */
static bool put_arguments(JSContext *ctx, yyjson_mut_doc *request, yyjson_mut_val *root,
                          JSValueConst arguments)
{
    JSValue json = JS_JSONStringify(ctx, arguments, JS_UNDEFINED, JS_UNDEFINED);
    if (JS_IsException(json))
        return false;
    size_t len = 2;
    const char *text = JS_IsUndefined(json) ? NULL : JS_ToCStringLen(ctx, &len, json);
    yyjson_doc *parsed = yyjson_read(text == NULL ? "{}" : text, len, 0);
    JS_FreeCString(ctx, text);
    JS_FreeValue(ctx, json);
    if (!yyjson_is_obj(yyjson_doc_get_root(parsed))) {
        JS_ThrowTypeError(ctx, "the arguments of a tool must be an object of valid Unicode");
        return false;
    }
    yyjson_mut_val *copy = yyjson_val_mut_copy(request, yyjson_doc_get_root(parsed));
    yyjson_mut_obj_add_val(request, root, "input", copy);
    yyjson_doc_free(parsed);
    return true;
}

/* nexus.call(name, arguments): the script waits; policy, budget and audit are the host's. */
static JSValue tool_call(JSContext *ctx, JSValueConst self, int count, JSValueConst *values)
{
    (void) self;
    if (count < 1 || !JS_IsString(values[0]))
        return JS_ThrowTypeError(ctx, "nexus.call(name, arguments): the name must be a string");
    yyjson_mut_doc *request = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(request), *name;
    size_t len = 0;
    const char *text = JS_ToCStringLen(ctx, &len, values[0]);
    name = text == NULL ? NULL : yyjson_mut_strncpy(request, text, len);
    JS_FreeCString(ctx, text);
    yyjson_mut_obj_add(root, yyjson_mut_str(request, "name"), name);
    yyjson_mut_doc_set_root(request, root);
    JSValueConst arguments = count > 1 ? values[1] : JS_UNDEFINED;
    if (!put_arguments(ctx, request, root, arguments)) {
        yyjson_mut_doc_free(request);
        return JS_EXCEPTION;
    }
    struct tool_error e = {0};
    yyjson_val *answer = NULL;
    bool ok = tool_host_call("tool_call", request, &answer, &e);
    yyjson_mut_doc_free(request);
    if (!ok)
        return throw_failure(ctx, &e);
    char *json = yyjson_val_write(answer, 0, &len);
    JSValue value =
        json == NULL ? JS_ThrowOutOfMemory(ctx) : JS_ParseJSON(ctx, json, len, "nexus.call");
    free(json);
    return value;
}

/* ---- globals ------------------------------------------------------------------------------------ */

static void add_function(struct sandbox *box, JSValueConst object, const char *name,
                         JSCFunctionMagic *function, int magic)
{
    JS_SetPropertyStr(
        box->ctx, object, name,
        JS_NewCFunctionMagic(box->ctx, function, name, 1, JS_CFUNC_generic_magic, magic));
}

static void add_globals(struct sandbox *box)
{
    static const struct {
        const char *name;
        int is_error;
    } methods[] = {{"log", 0}, {"info", 0}, {"debug", 0}, {"warn", 1}, {"error", 1}};
    JSContext *ctx = box->ctx;
    JSValue global = JS_GetGlobalObject(ctx), console = JS_NewObject(ctx);
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        add_function(box, console, methods[i].name, console_print, methods[i].is_error);
    JS_SetPropertyStr(ctx, global, "console", console);
    add_function(box, global, "setTimeout", timer_set, 0);
    add_function(box, global, "setInterval", timer_set, 1);
    JS_SetPropertyStr(ctx, global, "clearTimeout",
                      JS_NewCFunction(ctx, timer_clear, "clearTimeout", 1));
    JS_SetPropertyStr(ctx, global, "clearInterval",
                      JS_NewCFunction(ctx, timer_clear, "clearInterval", 1));
    JSValue nexus = JS_NewObject(ctx);
    JS_SetPropertyStr(ctx, nexus, "call", JS_NewCFunction(ctx, tool_call, "call", 2));
    JS_SetPropertyStr(ctx, global, "nexus", nexus);
    JS_FreeValue(ctx, global);
}

static bool add_input(struct sandbox *box, const char *name, yyjson_val *from, JSValue fallback)
{
    JSContext *ctx = box->ctx;
    JSValue value = fallback;
    if (from != NULL) {
        size_t len = 0;
        char *json = yyjson_val_write(from, 0, &len);
        if (json == NULL)
            return false;
        value = JS_ParseJSON(ctx, json, len, name);
        free(json);
    }
    JSValue global = JS_GetGlobalObject(ctx);
    bool ok = !JS_IsException(value) && JS_SetPropertyStr(ctx, global, name, value) >= 0;
    JS_FreeValue(ctx, global);
    if (!ok)
        report_exception(box);
    return ok;
}

/* ---- what the script leaves behind -------------------------------------------------------------- */

static void fail_output(struct sandbox *box, const char *why)
{
    capture_string(&box->outcome->err, why);
    capture_string(&box->outcome->err, "\n");
    box->outcome->exit_code = 1;
}

/* A global `let` or `const` is no property of globalThis, but later scripts see it. */
static void take_result(struct sandbox *box)
{
    static const char probe[] = "typeof result === 'undefined' ? undefined : result";
    JSContext *ctx = box->ctx;
    JSValue value = JS_Eval(ctx, probe, sizeof probe - 1, "result", JS_EVAL_TYPE_GLOBAL);
    JSValue json = JS_IsException(value) ? JS_EXCEPTION
                                         : JS_JSONStringify(ctx, value, JS_UNDEFINED, JS_UNDEFINED);
    JS_FreeValue(ctx, value);
    if (JS_IsException(json)) {
        capture_string(&box->outcome->err, "result cannot be given back as JSON: ");
        report_exception(box);
        return;
    }
    size_t len = 0;
    const char *string = JS_IsUndefined(json) ? NULL : JS_ToCStringLen(ctx, &len, json);
    JS_FreeValue(ctx, json);
    if (string == NULL)
        return;
    if (len > RESULT_BYTES_MAX)
        fail_output(box,
                    "result is larger than 256 KiB of JSON; give back less, or write it to files");
    else {
        yyjson_doc *parsed = yyjson_read(string, len, 0);
        if (parsed == NULL)
            fail_output(box, "result holds text that is not valid Unicode");
        else
            box->outcome->result = yyjson_val_mut_copy(box->doc, yyjson_doc_get_root(parsed));
    }
    JS_FreeCString(ctx, string);
}

static yyjson_mut_val *copy_text(struct sandbox *box, const char *ptr, size_t len)
{
    if (utf8_is_valid(ptr, len))
        return yyjson_mut_strncpy(box->doc, ptr, len);
    char *valid = tool_alloc(len * 3);
    return yyjson_mut_strn(box->doc, valid, utf8_copy_valid(valid, ptr, len));
}

static bool is_unchanged(const struct script *script, const char *name, size_t name_len,
                         const char *ptr, size_t len)
{
    yyjson_val *old = yyjson_obj_getn(script->files, name, name_len);
    return yyjson_is_str(old) && yyjson_get_len(old) == len &&
           memcmp(yyjson_get_str(old), ptr, len) == 0;
}

static bool take_file(struct sandbox *box, const struct script *script, JSValueConst files,
                      JSAtom atom, size_t *total)
{
    JSContext *ctx = box->ctx;
    size_t name_len, len;
    const char *name = JS_AtomToCStringLen(ctx, &name_len, atom);
    JSValue value = JS_GetProperty(ctx, files, atom);
    const char *string =
        name == NULL || JS_IsException(value) ? NULL : JS_ToCStringLen(ctx, &len, value);
    bool ok = string != NULL;
    if (ok && !is_unchanged(script, name, name_len, string, len)) {
        *total += name_len + len;
        ok = *total <= FILES_BYTES_MAX;
        if (!ok)
            fail_output(box, "the files written are larger than 256 KiB together");
        else {
            if (box->outcome->files == NULL)
                box->outcome->files = yyjson_mut_obj(box->doc);
            yyjson_mut_obj_add(box->outcome->files, copy_text(box, name, name_len),
                               copy_text(box, string, len));
        }
    } else if (!ok)
        report_exception(box);
    JS_FreeCString(ctx, string);
    JS_FreeCString(ctx, name);
    JS_FreeValue(ctx, value);
    return ok;
}

static void take_files(struct sandbox *box, const struct script *script)
{
    JSContext *ctx = box->ctx;
    JSValue global = JS_GetGlobalObject(ctx), files = JS_GetPropertyStr(ctx, global, "files");
    JSPropertyEnum *names = NULL;
    uint32_t count = 0;
    size_t total = 0;
    if (JS_IsObject(files) && JS_GetOwnPropertyNames(ctx, &names, &count, files,
                                                     JS_GPN_STRING_MASK | JS_GPN_ENUM_ONLY) == 0)
        for (uint32_t i = 0; i < count; i++)
            if (!take_file(box, script, files, names[i].atom, &total))
                break;
    JS_FreeValue(ctx, files);
    JS_FreeValue(ctx, global);
}

static void evaluate(struct sandbox *box, const struct script *script)
{
    JSContext *ctx = box->ctx;
    char *code = tool_alloc(script->code.len + 1); /* the engine wants a terminator */
    memcpy(code, script->code.ptr, script->code.len);
    code[script->code.len] = '\0';
    JSValue promise =
        JS_Eval(ctx, code, script->code.len, "code.js", JS_EVAL_TYPE_GLOBAL | JS_EVAL_FLAG_ASYNC);
    if (JS_IsException(promise)) {
        report_exception(box);
        return;
    }
    run_to_end(box);
    settle(box, promise);
    JS_FreeValue(ctx, promise);
}

/* ---- the engine --------------------------------------------------------------------------------- */

/* In the snapshot: everything up to here is done when a call begins. */
static struct sandbox *prepared;

/* What nearly every script uses is made on first use; making it here puts it into the snapshot. */
static void touch_builtins(JSContext *ctx)
{
    static const char prelude[] =
        "[Object, Array, String, Number, JSON, Math, Date, Map, Set, RegExp, Promise, "
        "Error].forEach("
        "c => { for (const o of [c, c.prototype]) if (o) Object.getOwnPropertyDescriptors(o); });"
        "void eval('(async () => { let x = await [1].map(y => `${y}`); })');";
    JS_FreeValue(ctx, JS_Eval(ctx, prelude, sizeof prelude - 1, "prelude", JS_EVAL_TYPE_GLOBAL));
    JS_RunGC(JS_GetRuntime(ctx));
}

void script_prepare(void)
{
    struct sandbox *box = tool_alloc(sizeof *box);
    memset(box, 0, sizeof *box);
    box->runtime = JS_NewRuntime();
    box->ctx = box->runtime == NULL ? NULL : JS_NewContext(box->runtime);
    if (box->ctx == NULL)
        return;
    JS_SetContextOpaque(box->ctx, box);
    JS_SetHostPromiseRejectionTracker(box->runtime, track_rejection, box);
    add_globals(box);
    touch_builtins(box->ctx);
    prepared = box;
}

static uint64_t random_seed(void)
{
    uint64_t seed = 0;
    if (getentropy(&seed, sizeof seed) != 0)
        __builtin_trap(); /* the host has randomness */
    return seed;
}

/* Nothing is freed at the end: the instance is thrown away. */
void script_run(const struct script *script, yyjson_mut_doc *doc, struct script_outcome *outcome)
{
    *outcome = (struct script_outcome){.out.max = STDOUT_BYTES_MAX, .err.max = STDERR_BYTES_MAX};
    void *reserve = tool_alloc(RESERVE_BYTES);
    if (prepared == NULL)
        script_prepare();
    if (prepared == NULL) {
        static const char why[] = "there is not enough memory to start the engine\n";
        capture_add(&outcome->err, why, sizeof why - 1);
        outcome->exit_code = 1;
        return;
    }
    struct sandbox *box = prepared;
    box->outcome = outcome;
    box->doc = doc;
    engine_limit_stack(box->runtime, CODE_STACK_BYTES);
    engine_renew(box->ctx, random_seed());
    if (add_input(box, "input", script->input, JS_UNDEFINED) &&
        add_input(box, "files", script->files, JS_NewObject(box->ctx)))
        evaluate(box, script);
    tool_free(reserve);
    if (outcome->exit_code == 0)
        take_result(box);
    if (outcome->exit_code == 0)
        take_files(box, script);
}
