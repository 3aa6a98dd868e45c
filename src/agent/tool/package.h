/*
 * Package: one tool at one version in one file (.nexus-tool), and what its signature covers.
 *
 * A package is a ustar archive (POSIX.1-1988; what `tar --format=ustar` writes) of plain files without folders:
 *
 *      manifest.yaml      first or anywhere
 *      MODULE.wasm ...    those that the manifest names, and no others
 *      manifest.sig       optional
 *
 * The seal is the sha256 of the canonical JSON (RFC 8785) of {"manifest": sha256, "modules": {file: sha256, ...}, "name", "version"}.
 * manifest.sig is {"algorithm": "ed25519", "public_key": hex, "seal": hex, "signature": base64}; signed is "nexus-tool-package 1\n" and
 * the seal in hex, so that the signature fits nothing else.
 * Reading is pure and borrows the bytes; every size and count is bounded.  Thread: any.
 */
#ifndef NEXUS_AGENT_PACKAGE_H
#define NEXUS_AGENT_PACKAGE_H

#include "agent/tool/tool.h"
#include "base/limits.h"

#define PACKAGE_MANIFEST S("manifest.yaml")
#define PACKAGE_SIGNATURE S("manifest.sig")

struct package_file {
    str name; /* bare: no slash, no leading dot */
    str bytes;
};
struct package {
    struct package_file files[PACKAGE_FILES_MAX];
    size_t count;
};

/* REASON_INVALID names the entry and what is wrong with it. */
must_check bool package_read(str archive, struct package *out, struct error *e);
const struct package_file *package_find(const struct package *package, str name); /* NULL: none */
/* The same bytes for the same files: names in order, no times, no owners. */
str package_write(struct arena *arena, const struct package *package);
/* May a file of a package be called so? */
bool package_name_is_lawful(str name);

/* manifest.yaml alone: modules by bare names, digests empty.  `file` is only a name for messages ("file:line: ..."). */
must_check bool package_manifest(struct arena *arena, str file, str text, struct tool *out,
                                 struct error *e);
/* The manifest of a package: name, version, modules by bare names; its modules' digests are those of the files.  Fails when a module is
   missing or a file is there that the manifest does not name. */
must_check bool package_tool(struct arena *arena, const struct package *package, struct tool *out,
                             struct error *e);

/* ---- the seal and its signature ---- */

/* `manifest`: sha256 of its bytes.  The tool's modules count by the last part of their paths. */
digest package_seal(const struct tool *tool, digest manifest);

struct package_signature {
    uint8_t public_key[SIGNATURE_KEY_BYTES];
};
/* The text of a manifest.sig by this private key. */
str package_sign(struct arena *arena, digest seal, const uint8_t private_key[SIGNATURE_KEY_BYTES]);
/* Is this a signature of that seal, by the key it names?  DENIED: something was changed after signing.  Whether the key is trusted is
   the registry's to say. */
must_check bool package_verify(str text, digest seal, struct package_signature *out,
                               struct error *e);

/* A private key in a file: 32 bytes in hex. */
bool package_key_read(str text, uint8_t out[SIGNATURE_KEY_BYTES]);

/* How many modules a tool has, and where. */
size_t tool_module_total(const struct tool *tool);
str tool_module_at(const struct tool *tool, size_t index, digest *out); /* `out` may be NULL */

#endif
