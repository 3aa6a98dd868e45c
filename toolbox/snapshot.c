/*
 * Runs a module's start-up when it is built, so that no call has to:
 *
 *     toolbox_snapshot IN.wasm EXPORT OUT.wasm
 *
 * EXPORT takes and gives nothing; it may not call the host.  OUT begins where it ended (nexus_native.h).
 */
#include <nexus_native.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MODULE_BYTES_MAX = 64 << 20 };

static size_t read_file(const char *path, char *to)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    size_t count = fread(to, 1, MODULE_BYTES_MAX, file);
    fclose(file);
    return count;
}

static bool write_file(const char *path, const uint8_t *bytes, size_t count)
{
    FILE *file = fopen(path, "wb");
    if (file == NULL)
        return false;
    bool is_written = fwrite(bytes, 1, count, file) == count;
    return fclose(file) == 0 && is_written;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return fprintf(stderr, "usage: toolbox_snapshot IN.wasm EXPORT OUT.wasm\n"), 2;
    char *wasm = malloc(MODULE_BYTES_MAX);
    if (wasm == NULL)
        return perror("toolbox_snapshot"), 1;
    struct native_text module = {wasm, read_file(argv[1], wasm)}, init = {argv[2], strlen(argv[2])};
    uint8_t *out = NULL;
    size_t bytes = 0;
    char *why = NULL;
    if (native_snapshot(module, init, &out, &bytes, &why) != NATIVE_OK)
        return fprintf(stderr, "toolbox_snapshot: %s: %s\n", argv[1], why), 1;
    if (!write_file(argv[3], out, bytes))
        return perror(argv[3]), 1;
    native_snapshot_free(out, bytes);
    free(wasm);
    return 0;
}
