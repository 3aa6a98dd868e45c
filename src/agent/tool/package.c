#include "agent/tool/package.h"

#include "agent/tool/manifest_internal.h"
#include "base/arena.h"

/* ---- ustar ---- */

enum {
    BLOCK = 512,
    NAME_AT = 0,
    NAME_BYTES = 100,
    MODE_AT = 100,
    SIZE_AT = 124,
    TIME_AT = 136,
    SUM_AT = 148,
    SUM_BYTES = 8,
    KIND_AT = 156,
    MAGIC_AT = 257,
    PREFIX_AT = 345,
};

static bool is_zero(str block)
{
    for (size_t i = 0; i < block.len; i++)
        if (block.ptr[i] != 0)
            return false;
    return true;
}

/* A field's digits, ended by a space or NUL; nothing else. */
static bool read_octal(str field, uint64_t *out)
{
    uint64_t value = 0;
    size_t i = 0;
    while (i < field.len && field.ptr[i] == ' ')
        i++;
    size_t first = i;
    for (; i < field.len && field.ptr[i] >= '0' && field.ptr[i] <= '7'; i++)
        value = value << 3 | (uint64_t) (field.ptr[i] - '0');
    if (i == first || i - first > 12)
        return false;
    for (; i < field.len; i++)
        if (field.ptr[i] != ' ' && field.ptr[i] != 0)
            return false;
    *out = value;
    return true;
}

static uint64_t header_sum(str block)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < BLOCK; i++)
        sum += i >= SUM_AT && i < SUM_AT + SUM_BYTES ? ' ' : (unsigned char) block.ptr[i];
    return sum;
}

static str text_field(str block, size_t at, size_t bytes)
{
    str field = str_slice(block, at, at + bytes);
    size_t end = str_find_char(field, '\0');
    return end == STR_NOT_FOUND ? field : str_slice(field, 0, end);
}

bool package_name_is_lawful(str name)
{
    if (name.len == 0 || name.len > PACKAGE_NAME_BYTES_MAX || name.ptr[0] == '.' ||
        name.ptr[0] == '-')
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool is_word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '.';
        if (!is_word)
            return false;
    }
    return true;
}

static bool is_header(str block)
{
    uint64_t sum;
    return str_starts_with(str_from(block, MAGIC_AT), S("ustar")) &&
           read_octal(str_slice(block, SUM_AT, SUM_AT + SUM_BYTES), &sum) &&
           sum == header_sum(block);
}

/* One entry; *is_file is false for a folder entry, which is skipped. */
static bool read_entry(str block, uint64_t *bytes, str *name, bool *is_file, struct error *e)
{
    if (!is_header(block))
        return error_set(
            e, REASON_INVALID,
            "this is no ustar archive: make it with `nexus tool` or `tar --format=ustar`");
    *name = text_field(block, NAME_AT, NAME_BYTES);
    str_strip_prefix(*name, S("./"), name);
    str shown = str_cut_utf8(*name, 60);
    char kind = block.ptr[KIND_AT];
    *is_file = kind == '0' || kind == 0;
    if (!read_octal(str_slice(block, SIZE_AT, SIZE_AT + 12), bytes) || *bytes > PACKAGE_BYTES_MAX)
        return error_set(e, REASON_INVALID, "entry \"" STR_FMT "\" has no size, or one over %u MiB",
                         STR_ARG(shown), PACKAGE_BYTES_MAX >> 20);
    if (kind == '5' && str_is_empty(*name) && *bytes == 0)
        return true; /* "./" */
    if (!*is_file)
        return error_set(e, REASON_INVALID,
                         "entry \"" STR_FMT
                         "\" is no plain file; a package has no folders, links or "
                         "extended headers (tar --format=ustar)",
                         STR_ARG(shown));
    if (!package_name_is_lawful(*name) || block.ptr[PREFIX_AT] != 0)
        return error_set(e, REASON_INVALID,
                         "entry \"" STR_FMT "\": names are bare, of letters, digits, - _ and .",
                         STR_ARG(shown));
    return true;
}

static bool add_file(struct package *package, str name, str bytes, struct error *e)
{
    if (package_find(package, name))
        return error_set(e, REASON_INVALID, "entry \"" STR_FMT "\" is there twice", STR_ARG(name));
    if (package->count == PACKAGE_FILES_MAX)
        return error_set(e, REASON_LIMIT, "more than %u files in one package", PACKAGE_FILES_MAX);
    package->files[package->count++] = (struct package_file){name, bytes};
    return true;
}

bool package_read(str archive, struct package *out, struct error *e)
{
    out->count = 0;
    if (archive.len > PACKAGE_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "a package is at most %u MiB",
                         PACKAGE_BYTES_MAX >> 20);
    for (str rest = archive; rest.len >= BLOCK;) {
        str block = str_slice(rest, 0, BLOCK), name;
        uint64_t bytes = 0;
        bool is_file = false;
        if (is_zero(block)) {
            if (!is_zero(rest))
                return error_set(e, REASON_INVALID, "there is something behind the archive's end");
            return out->count > 0 || error_set(e, REASON_INVALID, "the package is empty");
        }
        if (!read_entry(block, &bytes, &name, &is_file, e))
            return false;
        size_t padded = (bytes + BLOCK - 1) / BLOCK * BLOCK;
        rest = str_from(rest, BLOCK);
        if (padded > rest.len)
            return error_set(e, REASON_INVALID, "entry \"" STR_FMT "\" is cut off", STR_ARG(name));
        if (is_file && !add_file(out, name, str_slice(rest, 0, bytes), e))
            return false;
        rest = str_from(rest, padded);
    }
    return error_set(e, REASON_INVALID, "the archive has no end: it was cut off, or is none");
}

const struct package_file *package_find(const struct package *package, str name)
{
    for (size_t i = 0; i < package->count; i++)
        if (str_equal(package->files[i].name, name))
            return &package->files[i];
    return NULL;
}

static void put_octal(char *field, size_t digits, uint64_t value)
{
    for (size_t i = digits; i > 0; i--, value >>= 3)
        field[i - 1] = (char) ('0' + (value & 7));
}

static void write_header(char *block, const struct package_file *file)
{
    memcpy(block + NAME_AT, file->name.ptr, file->name.len);
    put_octal(block + MODE_AT, 7, 0644);
    put_octal(block + MODE_AT + 8, 7, 0);
    put_octal(block + MODE_AT + 16, 7, 0);
    put_octal(block + SIZE_AT, 11, file->bytes.len);
    put_octal(block + TIME_AT, 11, 0);
    block[KIND_AT] = '0';
    memcpy(block + MAGIC_AT, "ustar\00000", 8);
    put_octal(block + SUM_AT, 6, header_sum(str_of(block, BLOCK)));
    block[SUM_AT + 7] = ' ';
}

str package_write(struct arena *arena, const struct package *package)
{
    size_t total = 2 * BLOCK, done = 0;
    for (size_t i = 0; i < package->count; i++)
        total += BLOCK + (package->files[i].bytes.len + BLOCK - 1) / BLOCK * BLOCK;
    char *archive = arena_alloc(arena, total), *at = archive;
    const struct package_file *last = NULL;
    for (; done < package->count; done++) {
        const struct package_file *next = NULL;
        for (size_t i = 0; i < package->count; i++) {
            const struct package_file *file = &package->files[i];
            if ((!last || str_compare(file->name, last->name) > 0) &&
                (!next || str_compare(file->name, next->name) < 0))
                next = file;
        }
        if (!next)
            break; /* two of one name: the second has no place */
        write_header(at, next);
        if (next->bytes.len > 0)
            memcpy(at + BLOCK, next->bytes.ptr, next->bytes.len);
        at += BLOCK + (next->bytes.len + BLOCK - 1) / BLOCK * BLOCK;
        last = next;
    }
    return str_of(archive, (size_t) (at - archive) + 2 * BLOCK);
}

/* ---- modules ---- */

size_t tool_module_total(const struct tool *tool)
{
    if (tool->module_count > 0)
        return tool->module_count;
    return str_is_empty(tool->module_path) ? 0 : 1;
}

str tool_module_at(const struct tool *tool, size_t index, digest *out)
{
    bool has_several = tool->module_count > 0;
    if (out)
        *out = has_several ? tool->modules[index].digest : tool->module_digest;
    return has_several ? tool->modules[index].path : tool->module_path;
}

bool package_manifest(struct arena *arena, str file, str text, struct tool *out, struct error *e)
{
    return manifest_read(arena, file, text, out, e);
}

static bool set_module_digest(struct tool *tool, size_t index, const struct package *package,
                              struct error *e)
{
    str path = tool_module_at(tool, index, NULL);
    const struct package_file *file = package_find(package, path);
    if (!file || str_equal(path, PACKAGE_MANIFEST) || str_equal(path, PACKAGE_SIGNATURE))
        return error_set(e, REASON_INVALID,
                         "the manifest names the module " STR_FMT ", which the package lacks",
                         STR_ARG(path));
    if (file->bytes.len == 0 || file->bytes.len > SANDBOX_MODULE_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "its module " STR_FMT " is empty or over %u MiB",
                         STR_ARG(path), SANDBOX_MODULE_BYTES_MAX >> 20);
    digest found = digest_sha256(file->bytes);
    if (tool->module_count > 0)
        tool->modules[index].digest = found;
    else
        tool->module_digest = found;
    return true;
}

bool package_tool(struct arena *arena, const struct package *package, struct tool *out,
                  struct error *e)
{
    const struct package_file *manifest = package_find(package, PACKAGE_MANIFEST);
    if (!manifest)
        return error_set(e, REASON_INVALID, "the package has no manifest.yaml");
    if (!manifest_read(arena, PACKAGE_MANIFEST, manifest->bytes, out, e))
        return false;
    for (size_t i = 0; i < tool_module_total(out); i++)
        if (!set_module_digest(out, i, package, e))
            return false;
    if (out->module_count > 0)
        out->module_digest = tool_modules_digest(out);
    for (size_t i = 0; i < package->count; i++) {
        str name = package->files[i].name;
        bool is_known = str_equal(name, PACKAGE_MANIFEST) || str_equal(name, PACKAGE_SIGNATURE);
        for (size_t j = 0; j < tool_module_total(out) && !is_known; j++)
            is_known = str_equal(name, tool_module_at(out, j, NULL));
        if (!is_known)
            return error_set(e, REASON_INVALID,
                             "the package has a file " STR_FMT " that its manifest does not name",
                             STR_ARG(name));
    }
    return true;
}

/* ---- the seal ---- */

static str last_part(str path)
{
    size_t from = path.len;
    while (from > 0 && path.ptr[from - 1] != '/')
        from--;
    return str_from(path, from);
}

digest package_seal(const struct tool *tool, digest manifest)
{
    OWNED(arena) arena = arena_create(0);
    struct strbuf text;
    struct json_writer w;
    const struct json *tree;
    strbuf_init(&text, arena, 64u << 10);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("name"), tool->name);
    json_put_str(&w, S("version"), tool->version);
    json_put_str(&w, S("manifest"), digest_hex(arena, manifest));
    json_key(&w, S("modules"));
    json_object_begin(&w);
    for (size_t i = 0; i < tool_module_total(tool); i++) {
        digest module;
        str path = last_part(tool_module_at(tool, i, &module));
        bool is_repeated = false; /* several values of the member may share a file */
        for (size_t j = 0; j < i && !is_repeated; j++)
            is_repeated = str_equal(path, last_part(tool_module_at(tool, j, NULL)));
        if (!is_repeated)
            json_put_str(&w, path, digest_hex(arena, module));
    }
    json_object_end(&w);
    json_object_end(&w);
    struct error never;
    if (!json_parse(arena, strbuf_str(&text), (struct json_limits){0}, &tree, &never))
        return (digest){{0}}; /* it was just written */
    return digest_sha256(json_canonical(arena, tree));
}

static str signed_text(struct arena *arena, digest seal)
{
    return str_printf(arena, "nexus-tool-package 1\n" STR_FMT, STR_ARG(digest_hex(arena, seal)));
}

str package_sign(struct arena *arena, digest seal, const uint8_t private_key[SIGNATURE_KEY_BYTES])
{
    uint8_t public_key[SIGNATURE_KEY_BYTES], signature[SIGNATURE_BYTES];
    signature_public_key(private_key, public_key);
    signature_sign(private_key, signed_text(arena, seal), signature);
    return str_printf(
        arena,
        "{\"algorithm\":\"ed25519\",\"public_key\":\"" STR_FMT "\",\"seal\":\"" STR_FMT
        "\",\"signature\":\"" STR_FMT "\"}\n",
        STR_ARG(str_hex(arena, public_key, sizeof public_key)), STR_ARG(digest_hex(arena, seal)),
        STR_ARG(base64_encode(arena, str_of((const char *) signature, sizeof signature))));
}

bool package_key_read(str text, uint8_t out[SIGNATURE_KEY_BYTES])
{
    digest key;
    static_assert(sizeof key.bytes == SIGNATURE_KEY_BYTES, "a key is read as a digest is");
    if (!digest_parse_hex(str_trim(text), &key))
        return false;
    memcpy(out, key.bytes, sizeof key.bytes);
    explicit_bzero(&key, sizeof key);
    return true;
}

bool package_verify(str text, digest seal, struct package_signature *out, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    const struct json *json;
    digest named;
    str bytes;
    struct json_limits limits = {.bytes_max = PACKAGE_SIGNATURE_BYTES_MAX, .depth_max = 4};
    if (!json_parse(arena, text, limits, &json, e))
        return error_wrap(e, "manifest.sig");
    if (!str_equal(json_str_or(json, S("algorithm"), STR_NONE), S("ed25519")) ||
        !package_key_read(json_str_or(json, S("public_key"), STR_NONE), out->public_key) ||
        !digest_parse_hex(json_str_or(json, S("seal"), STR_NONE), &named) ||
        !base64_decode(arena, json_str_or(json, S("signature"), STR_NONE), &bytes) ||
        bytes.len != SIGNATURE_BYTES)
        return error_set(e, REASON_INVALID,
                         "manifest.sig must have algorithm ed25519, public_key, seal, signature");
    if (!digest_equal(named, seal))
        return error_set(e, REASON_DENIED,
                         "the manifest or a module was changed after it was signed");
    return signature_verify(out->public_key, signed_text(arena, seal),
                            (const uint8_t *) bytes.ptr) ||
           error_set(e, REASON_DENIED, "the signature is not of the key it names");
}
