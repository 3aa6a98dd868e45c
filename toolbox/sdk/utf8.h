/*
 * UTF-8: walk, check and mend.  No locale, no tables but those of towupper() and towlower().
 */
#ifndef NEXUS_TOOL_UTF8_H
#define NEXUS_TOOL_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads one character and returns its length in bytes.  A byte that starts no valid character counts as
 * one character of one byte, with *code = 0xFFFD.  Needs at < end. */
size_t utf8_next(const char *at, const char *end, uint32_t *code);

/* Writes one character (at most 4 bytes) and returns its length. */
size_t utf8_put(char *to, uint32_t code);

/* Characters in the text. */
size_t utf8_count(const char *ptr, size_t len);

bool utf8_is_valid(const char *ptr, size_t len);

/* Copies with each invalid byte replaced by U+FFFD.  `to` needs 3 * len bytes; returns the length. */
size_t utf8_copy_valid(char *to, const char *ptr, size_t len);

/* Replaces invalid bytes of a terminated string by '?' in place and drops a cut character at its end. */
void utf8_mend(char *string);

#endif
