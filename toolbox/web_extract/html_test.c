#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "charset.h"
#include "html.h"

static void assert_text(const char *html, const char *expected)
{
    struct html_page page;
    html_read((struct text){html, strlen(html)}, 10000, true, &page);
    if (page.text.len != strlen(expected) || memcmp(page.text.ptr, expected, page.text.len) != 0)
        fail_msg("%s\n  became: %.*s\n  not:    %s", html, (int) page.text.len, page.text.ptr,
                 expected);
    html_free(&page);
}

static void test_blocks_become_lines(void **state)
{
    (void) state;
    assert_text("<h1>One</h1><p>Two  \n three<p>four<br>five", "# One\n\nTwo three\n\nfour\nfive");
    assert_text("<h3>a</h3>b<hr>c", "### a\n\nb\n\n---\n\nc");
    assert_text("<div>a</div><div>b</div>", "a\nb");
    assert_text("a<b>b</b> <i>c</i>", "ab c");
    assert_text("<pre>a\n  b\n\nc</pre>d", "a\n  b\n\nc\n\nd");
}

static void test_lists_and_tables_are_text(void **state)
{
    (void) state;
    assert_text("<ul><li>a<li>b<ol><li>c</li><li>d</li></ol><li>e</ul>f",
                "- a\n- b\n  1. c\n  2. d\n- e\n\nf");
    assert_text("<ul><li><p>a</p></li></ul>", "- a");
    assert_text("<table><tr><th>x<th>y</tr><tr><td>1</td><td>2</td></tr></table>", "x | y\n1 | 2");
}

static void test_what_is_no_text_is_left_out(void **state)
{
    (void) state;
    assert_text("a<script>if (a < b) x('</p>')</script>b<style>p{}</style>c", "abc");
    assert_text("a<!-- <b>no</b> -->b<!doctype x>c<?php no ?>d", "abcd");
    assert_text("a<svg><text>no</text><svg></svg>no</svg>b<template>no</template>c", "abc");
    assert_text("a<div hidden>no<div>no</div></div>b<span style='display:none'>no</span>c", "abc");
    assert_text("a<p hidden>no<p>b", "a\n\nb");
    assert_text("a<span aria-hidden=true>no</span>b<input hidden>c", "abc");
    assert_text("a\xe2\x80\xae b\x01\xf3\xa0\x81\x81", "a b");
}

static void test_entities_are_decoded(void **state)
{
    (void) state;
    assert_text("&lt;b&gt; &amp;amp; &copy; &#233;&#xE9; &#150; &AMP &amp &nosuch; &#0; &",
                "<b> &amp; \xc2\xa9 \xc3\xa9\xc3\xa9 \xe2\x80\x93 & & &nosuch; \xef\xbf\xbd &");
    assert_text("a&nbsp;b", "a b");
}

static void test_broken_markup_ends(void **state)
{
    (void) state;
    assert_text("a<", "a<");
    assert_text("a < b", "a < b");
    assert_text("a<b", "a");
    assert_text("a<b x='", "a");
    assert_text("a<!--", "a");
    assert_text("a<script>b", "a");
    assert_text("</p></ul></li>a", "a");
    assert_text("<a href=x>y", "y");
    assert_text("a\xff\xfe", "a\xef\xbf\xbd\xef\xbf\xbd");
}

static void test_links_titles_and_meta_are_found(void **state)
{
    (void) state;
    struct html_page page;
    struct text html =
        TEXT("<html lang=en><head><title> A &amp; <b>B</b> </title><meta name=description "
             "content=' about  it '><base href='/b/'></head><a href='/x?a=1&amp;b=2'>go <b>there"
             "</b></a><a>none</a><img alt='a cat'>");
    html_read(html, 1000, true, &page);
    assert_int_equal(page.link_count, 1);
    assert_memory_equal(page.links[0].href.ptr, "/x?a=1&b=2", 10);
    assert_memory_equal(page.links[0].label.ptr, "go there", 8);
    assert_int_equal(page.title.len, 12);
    assert_memory_equal(page.title.ptr, "A & <b>B</b>", 12);
    assert_memory_equal(page.description.ptr, "about it", 8);
    assert_memory_equal(page.language.ptr, "en", 2);
    assert_memory_equal(page.base.ptr, "/b/", 3);
    html_free(&page);
}

static void test_bounds_hold(void **state)
{
    (void) state;
    static char many[HTML_LINKS_MAX * 20];
    struct html_page page;
    size_t len = 0;
    html_read(TEXT("0123456789"), 10, true, &page);
    assert_true(page.text.len == 10 && !page.is_truncated);
    html_free(&page);
    html_read(TEXT("0123456789x"), 10, true, &page);
    assert_true(page.text.len == 10 && page.is_truncated);
    html_free(&page);
    for (int i = 0; i < HTML_LINKS_MAX + 5; i++)
        len += (size_t) snprintf(many + len, sizeof many - len, "<a href=x>y</a>");
    html_read((struct text){many, len}, 100000, true, &page);
    assert_int_equal(page.link_count, HTML_LINKS_MAX);
    html_free(&page);
}

static void assert_charset(struct text in, const char *content_type, const char *expected)
{
    struct text out;
    char *copy;
    charset_decode(in, (struct text){content_type, strlen(content_type)}, &out, &copy);
    assert_int_equal(out.len, strlen(expected));
    assert_memory_equal(out.ptr, expected, out.len);
    tool_free(copy);
}

static void test_character_sets_are_told_apart(void **state)
{
    (void) state;
    assert_charset(TEXT("\xe9\x80"), "text/html; charset=ISO-8859-1", "\xc3\xa9\xe2\x82\xac");
    assert_charset(TEXT("\xc3\xa9"), "text/html; charset=\"utf-8\"", "\xc3\xa9");
    assert_charset(TEXT("\xc3\xa9"), "", "\xc3\xa9");
    assert_charset(TEXT("\xe9"), "", "\xc3\xa9");
    assert_charset(TEXT("\xef\xbb\xbfx"), "text/html; charset=latin1", "x");
    assert_charset(TEXT("\xff\xfe\xe9\x00\x3d\xd8\x00\xde"), "", "\xc3\xa9\xf0\x9f\x98\x80");
    assert_charset(TEXT("<meta charset=windows-1252>\x93"), "text/html",
                   "<meta charset=windows-1252>\xe2\x80\x9c");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_become_lines),
        cmocka_unit_test(test_lists_and_tables_are_text),
        cmocka_unit_test(test_what_is_no_text_is_left_out),
        cmocka_unit_test(test_entities_are_decoded),
        cmocka_unit_test(test_broken_markup_ends),
        cmocka_unit_test(test_links_titles_and_meta_are_found),
        cmocka_unit_test(test_bounds_hold),
        cmocka_unit_test(test_character_sets_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
