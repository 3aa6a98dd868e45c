/*
 * wordcount: the smallest useful tool, in the ABI `wasi-command`, which any language can speak:
 * one JSON object on stdin, one on stdout, messages for the operator on stderr, exit code 0.
 *
 * It needs no SDK.  Input {"text": "..."}; output {"words": n}.
 */
#include <stdio.h>
#include <string.h>

enum { INPUT_BYTES_MAX = 1 << 20 };

static char input[INPUT_BYTES_MAX + 1];

/* The first byte of the string that follows "text":, or NULL. */
static const char *find_text(void)
{
    const char *at = strstr(input, "\"text\"");
    if (at == NULL)
        return NULL;
    at += strlen("\"text\"");
    at += strspn(at, " \t\r\n");
    if (*at != ':')
        return NULL;
    at++;
    at += strspn(at, " \t\r\n");
    return *at == '"' ? at + 1 : NULL;
}

int main(void)
{
    size_t len = fread(input, 1, INPUT_BYTES_MAX, stdin), words = 0;
    input[len] = '\0';
    const char *at = find_text();
    if (at == NULL) {
        puts("{\"error\":{\"code\":\"invalid_input\",\"message\":\"give a string \\\"text\\\"\"}}");
        return 0;
    }
    int in_word = 0;
    for (; *at != '"' && *at != '\0'; at++) {
        int is_blank = *at == ' ';
        if (*at == '\\' && at[1] != '\0') {
            at++;
            is_blank = *at == 'n' || *at == 't' || *at == 'r';
        }
        words += !is_blank && !in_word;
        in_word = !is_blank;
    }
    fprintf(stderr, "read %zu bytes\n", len);
    printf("{\"words\":%zu}\n", words);
    return 0;
}
