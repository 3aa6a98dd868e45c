# build_info.h: version, and an id made of what was compiled (not of git: a source archive has the same id).
file(GLOB_RECURSE nexus_all_sources CONFIGURE_DEPENDS
    "${CMAKE_SOURCE_DIR}/src/*.c" "${CMAKE_SOURCE_DIR}/src/*.h" "${CMAKE_SOURCE_DIR}/src/*.def")
list(FILTER nexus_all_sources EXCLUDE REGEX "_(test|fuzz|testkit|contract)\\.[ch]$")
set(NEXUS_BUILD_INFO_DIR "${CMAKE_BINARY_DIR}/generated")
file(WRITE "${NEXUS_BUILD_INFO_DIR}/sources.list" "")
list(SORT nexus_all_sources)
foreach(source IN LISTS nexus_all_sources)
    file(APPEND "${NEXUS_BUILD_INFO_DIR}/sources.list" "${source}\n")
endforeach()
add_custom_command(
    OUTPUT "${NEXUS_BUILD_INFO_DIR}/build_info.h"
    COMMAND "${CMAKE_COMMAND}" "-DLIST=${NEXUS_BUILD_INFO_DIR}/sources.list" "-DROOT=${CMAKE_SOURCE_DIR}"
        "-DVERSION=${PROJECT_VERSION}" "-DKIND=${NEXUS_KIND}"
        "-DCOMPILER=${CMAKE_C_COMPILER_ID}-${CMAKE_C_COMPILER_VERSION}"
        "-DOUT=${NEXUS_BUILD_INFO_DIR}/build_info.h" -P "${CMAKE_SOURCE_DIR}/cmake/write_build_info.cmake"
    DEPENDS ${nexus_all_sources} "${CMAKE_SOURCE_DIR}/cmake/write_build_info.cmake"
        "${CMAKE_SOURCE_DIR}/native/Cargo.lock"
    VERBATIM COMMENT "build_info.h")
add_custom_target(build_info DEPENDS "${NEXUS_BUILD_INFO_DIR}/build_info.h")
