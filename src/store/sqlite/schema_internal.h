/*
 * Schema: the SQL that tables.def means, and the migrations that lead there.
 *
 * Migrations are numbered files in migrations/, embedded at build, applied in order, each in one
 * transaction, and remembered with their checksum in schema_migrations.  A test holds that their
 * sum equals schema_write_sql.
 */
#ifndef NEXUS_STORE_SQLITE_SCHEMA_INTERNAL_H
#define NEXUS_STORE_SQLITE_SCHEMA_INTERNAL_H

#include "store/sqlite/connection_internal.h"

struct strbuf;
void schema_write_sql(struct strbuf *out);

/*
 * REASON_CORRUPT when an applied migration has another checksum, REASON_CONFIG when the file is
 * newer than the program.
 */
must_check bool schema_migrate(struct connection *connection, int64_t now_us, bool *is_new,
                               struct error *e);
/* Version the program brings a file to. */
int schema_version(void);

#endif
