/*
 * Scratch folder: a place for a few small files while something that reads folders looks at them.
 *
 *      struct scratch_folder scratch;
 *      if (!scratch_folder_make(&scratch, S("policy"), e)) ...          $TMPDIR/nexus-policy-XXXXXX, else below /tmp; 0700
 *      bool ok = scratch_folder_write(&scratch, S("a.rego"), text, e) && ...;
 *      scratch_folder_remove(&scratch);                                  always, whatever became of it
 *
 * At most SCRATCH_BYTES_MAX in SCRATCH_FILES_MAX files; names are plain ones.  Removing takes the files in it, not folders.
 * Blocking.  Thread: any, one at a time.
 */
#ifndef NEXUS_RUNTIME_SCRATCH_FOLDER_H
#define NEXUS_RUNTIME_SCRATCH_FOLDER_H

#include "base/error.h"
#include "base/limits.h"
#include "base/str.h"

struct scratch_folder {
    char path[256];      /* empty: it is not there */
    size_t bytes, count; /* written, files that were replaced included */
};

/* `purpose` is part of its name: a plain word.  UNAVAILABLE names the folder in which none could be made. */
must_check bool scratch_folder_make(struct scratch_folder *scratch, str purpose, struct error *e);
str scratch_folder_path(const struct scratch_folder *scratch);
/* INVALID: no plain name.  LIMIT: too much.  A file of that name is replaced. */
must_check bool scratch_folder_write(struct scratch_folder *scratch, str name, str text,
                                     struct error *e);
void scratch_folder_remove(struct scratch_folder *scratch); /* one that is not there is fine */

#endif
