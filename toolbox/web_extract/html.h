/*
 * HTML to readable text: one pass, no tree, bounded output.
 *
 * A tokenizer that takes any bytes (tags, attributes in any quotes, comments, raw text of script and style, entities) drives a small
 * writer: blocks become lines, headings begin with '#', list items with '-' or their number, cells of a table row are joined by '|',
 * preformatted text keeps its blanks, links are collected.  Everything else is text with its white space folded.  What is not text
 * (script, style, template, svg, hidden elements ...) is passed over, to its own end tag, or to the end of the page.
 *
 * Input is UTF-8 (charset.h makes it so); bytes that are none become U+FFFD.  Output is UTF-8 without control characters.
 * Bounds: HTML_* below; what is past one is left out and said by is_truncated.
 */
#ifndef NEXUS_TOOL_HTML_H
#define NEXUS_TOOL_HTML_H

#include "nexus_tool.h"

enum {
    HTML_LINKS_MAX = 500,
    HTML_LINK_TEXT_MAX = 200,
    HTML_HREF_MAX = 2000,
    HTML_TITLE_MAX = 500,
    HTML_LISTS_MAX = 32, /* nested */
    HTML_HEADING_MAX = 6,
};

struct html_buffer {
    char *ptr;
    size_t len, capacity, max;
    bool is_over;
};
struct html_link {
    struct text href, label;
};
struct html_page {
    struct html_buffer text, title, description, language, base;
    struct html_link *links; /* HTML_LINKS_MAX */
    size_t link_count;
    bool is_truncated;
};

/* `text_bytes_max`: of page->text.  Free with html_free. */
void html_read(struct text html, size_t text_bytes_max, bool has_links, struct html_page *page);
/* Text that is no markup, with the same bounds and without controls. */
void html_read_plain(struct text text, size_t text_bytes_max, struct html_page *page);
void html_free(struct html_page *page);

/* The character of an entity such as "amp", "#233", "#xE9" (without & and ;), as UTF-8 into `out` (8 bytes); 0: unknown. */
size_t html_entity(struct text name, char *out);

#endif
