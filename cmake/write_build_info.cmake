# Run by the build: hashes the sources by name and content and writes build_info.h.
file(STRINGS "${LIST}" sources)
set(all "${VERSION} ${KIND} ${COMPILER}")
foreach(source IN LISTS sources "${ROOT}/native/Cargo.lock")
    if(EXISTS "${source}")
        file(SHA256 "${source}" digest)
        file(RELATIVE_PATH name "${ROOT}" "${source}")
        string(APPEND all "\n${name} ${digest}")
    endif()
endforeach()
string(SHA256 id "${all}")
string(SUBSTRING "${id}" 0 12 id)
file(WRITE "${OUT}" "/* Written by the build. */
#ifndef NEXUS_BUILD_INFO_H
#define NEXUS_BUILD_INFO_H

#define NEXUS_VERSION \"${VERSION}\"
#define NEXUS_BUILD_ID \"${id}\"
#define NEXUS_BUILD_KIND \"${KIND}\"

#endif
")
