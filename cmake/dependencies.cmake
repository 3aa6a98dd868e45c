# Libraries of the system (Debian 12 packages; scripts/setup installs them), each behind a name of ours.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

function(nexus_library name module)
    pkg_check_modules(${name} REQUIRED IMPORTED_TARGET ${module})
    add_library(nexus_system_${name} INTERFACE)
    target_link_libraries(nexus_system_${name} INTERFACE PkgConfig::${name})
    add_library(nexus::${name} ALIAS nexus_system_${name})
endfunction()

nexus_library(uv libuv)
nexus_library(crypto libcrypto)
nexus_library(ssl libssl)
nexus_library(curl libcurl)
nexus_library(cares libcares)
nexus_library(yaml yaml-0.1)
nexus_library(sqlite sqlite3)
nexus_library(zlib zlib)
nexus_library(jemalloc jemalloc)
nexus_library(seccomp libseccomp)
nexus_library(cmocka cmocka)

# boost.context has no pkg-config file; only its three C entry points are used.
find_library(NEXUS_BOOST_CONTEXT boost_context REQUIRED)
add_library(nexus_system_boost_context INTERFACE)
target_link_libraries(nexus_system_boost_context INTERFACE "${NEXUS_BOOST_CONTEXT}")
add_library(nexus::boost_context ALIAS nexus_system_boost_context)

# Hyperscan on amd64, its port vectorscan elsewhere: one module.
pkg_check_modules(nexus_hs QUIET libhs)
if(NOT nexus_hs_FOUND)
    message(FATAL_ERROR "libhs, which the content filter needs, is missing: install libhyperscan-dev (amd64) or "
                        "libvectorscan-dev (other processors); scripts/setup does it.")
endif()
nexus_library(hyperscan libhs)
