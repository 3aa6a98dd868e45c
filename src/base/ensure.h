/*
 * ensure(x): a check for our own mistakes.  It stays on in release builds; when it fails it prints the expression
 * with file and line on stderr and aborts the process.  Never used on anything that came from outside.
 */
#ifndef NEXUS_BASE_ENSURE_H
#define NEXUS_BASE_ENSURE_H

#include "base/attributes.h"

#define ensure(x) (likely(x) ? (void) 0 : ensure_failed(#x, __FILE__, __LINE__))
#define unreachable_state() ensure_failed("unreachable", __FILE__, __LINE__)

noreturn_function cold_path void ensure_failed(const char *expression, const char *file, int line);

#endif
