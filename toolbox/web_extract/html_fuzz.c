/* Any bytes as a page: the text is UTF-8 within its bound, without controls, and links lie within theirs. */
#include <stdint.h>
#include <stdlib.h>

#include "charset.h"
#include "html.h"
#include "utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void tool_release_all(void);

static void check(const struct html_buffer *buffer)
{
    if (buffer->len > buffer->max || !utf8_is_valid(buffer->ptr, buffer->len))
        abort();
    for (size_t i = 0; i < buffer->len; i++) {
        unsigned char c = (unsigned char) buffer->ptr[i];
        if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct html_page page;
    struct text html;
    char *copy;
    size_t max = size > 0 ? (size_t) data[0] * 64 + 100 : 100;
    struct text content_type =
        size > 1 && data[1] % 4 == 0 ? TEXT("text/html; charset=windows-1252") : TEXT("");
    charset_decode((struct text){(const char *) data, size}, content_type, &html, &copy);
    html_read(html, max, true, &page);
    check(&page.text);
    check(&page.title);
    check(&page.description);
    check(&page.language);
    if (page.link_count > HTML_LINKS_MAX || page.text.len > max)
        abort();
    html_free(&page);
    html_read_plain(html, max, &page);
    check(&page.text);
    html_free(&page);
    tool_free(copy);
    tool_release_all();
    return 0;
}
