/*
 * CSV reader: RFC 4180 records from a window, any one-byte separator.
 *
 * Understood: quoted fields with "" and line breaks inside, LF and CRLF, a UTF-8 byte order mark, a last
 * record without line break; empty lines are skipped.  A quote inside an unquoted field is an ordinary
 * character, text after a closing quote belongs to the field (as spreadsheets and Python read it).
 * An unclosed quote is an error that names the line where it opened.
 *
 * Ownership: fields point into the window and live until the next csv_next().
 */
#ifndef DATA_ANALYSIS_CSV_H
#define DATA_ANALYSIS_CSV_H

#include "window.h"

enum { CSV_FIELDS_MAX = 4096 };

struct csv {
    struct window window;
    char separator;
    uint64_t line;        /* of the next byte */
    uint64_t record_line; /* where the current record began */
    struct text *fields;  /* of the current record */
    size_t field_count;
    size_t field_capacity;
};

bool csv_init(struct csv *csv, const struct byte_source *source, char separator,
              struct tool_error *e);
void csv_deinit(struct csv *csv);

/* Reads the next record; *has_record is false at the end. */
bool csv_next(struct csv *csv, bool *has_record, struct tool_error *e);

/* The most frequent of , ; tab | outside quotes in the first line; comma when there is none. */
char csv_detect_separator(const char *ptr, size_t len);

#endif
