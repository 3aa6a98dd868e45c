/*
 * Nearest: the name that somebody probably meant, for "did you mean ...?".
 *
 *      struct nearest near = nearest_to(S("lst"));
 *      nearest_try(&near, S("show"));
 *      nearest_try(&near, S("list"));                  near.name is "list"; empty when none was near
 *
 * Far apart is what takes more than one change and another for each three letters: a letter put in, left out or replaced, or two neighbours
 * swapped; capitals do not count.  A name that begins with the word (two letters or more) is one change away.  The first of equals stays.
 * A word or name over NEAREST_BYTES_MAX is near to nothing.  Pure; borrows the word and the names.
 */
#ifndef NEXUS_BASE_NEAREST_H
#define NEXUS_BASE_NEAREST_H

#include "base/str.h"

struct nearest {
    str word, name;
    size_t distance; /* a name has to be nearer than this: changes */
};

struct nearest nearest_to(str word);
void nearest_try(struct nearest *nearest, str name);

#endif
