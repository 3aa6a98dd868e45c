#include "base/ensure.h"

#include <stdio.h>
#include <stdlib.h>

void ensure_failed(const char *expression, const char *file, int line)
{
    fprintf(stderr, "nexus: %s:%d: this should never happen: %s\n", file, line, expression);
    fflush(stderr);
    abort();
}
