# What comes from pinned crates: the Rust archive (native/, built once into the cache) and three C libraries whose
# sources cargo fetches by checksum (native/sources): yyjson, llhttp, quickjs-ng.
file(GLOB nexus_native_inputs CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/native/src/*.rs")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
    ${nexus_native_inputs} native/Cargo.toml native/Cargo.lock native/build.rs native/sources/Cargo.lock scripts/native)

function(nexus_run_native out command)
    execute_process(COMMAND "${CMAKE_SOURCE_DIR}/scripts/native" ${command}
        OUTPUT_VARIABLE output OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE status)
    if(NOT status EQUAL 0)
        message(FATAL_ERROR "scripts/native ${command} failed; scripts/setup installs what it needs")
    endif()
    set(${out} "${output}" PARENT_SCOPE)
endfunction()

# ---- the Rust archive -------------------------------------------------------------------------------------------
nexus_run_native(NEXUS_NATIVE_DIR path)
add_custom_command(
    OUTPUT "${NEXUS_NATIVE_DIR}/libnexus_native.a"
    COMMAND "${CMAKE_SOURCE_DIR}/scripts/native" build
    USES_TERMINAL VERBATIM
    COMMENT "native library")
add_custom_target(native DEPENDS "${NEXUS_NATIVE_DIR}/libnexus_native.a")

# The headers exist only after the first build, but CMake checks the folder now.
file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/generated")
add_library(nexus_native INTERFACE)
add_dependencies(nexus_native native)
target_compile_options(nexus_native INTERFACE "SHELL:-isystem ${NEXUS_NATIVE_DIR}/include")
target_include_directories(nexus_native INTERFACE "${CMAKE_SOURCE_DIR}/native/include")
target_link_libraries(nexus_native INTERFACE "${NEXUS_NATIVE_DIR}/libnexus_native.a" Threads::Threads dl m gcc_s)
add_library(nexus::native ALIAS nexus_native)

# ---- C sources inside crates ------------------------------------------------------------------------------------
nexus_run_native(sources sources)
string(REPLACE "\n" ";" sources "${sources}")
foreach(line IN LISTS sources)
    string(REGEX MATCH "^([^=]+)=(.*)$" _ "${line}")
    set(nexus_source_${CMAKE_MATCH_1} "${CMAKE_MATCH_2}")
endforeach()

function(nexus_foreign_library name include_dir)
    add_library(${name} STATIC ${ARGN})
    target_include_directories(${name} SYSTEM PUBLIC "${include_dir}")
    target_compile_options(${name} PRIVATE -w -fno-strict-aliasing -fno-omit-frame-pointer -ffunction-sections
        -fdata-sections $<$<STREQUAL:${NEXUS_KIND},dev>:-O2>)
    if(NEXUS_KIND MATCHES "asan|fuzz")
        target_compile_options(${name} PRIVATE -fno-sanitize=undefined)
        if(CMAKE_C_COMPILER_ID STREQUAL "GNU")      # checks by call, not inline: a fifth of the time to compile
            target_compile_options(${name} PRIVATE "SHELL:--param asan-instrumentation-with-call-threshold=0")
        endif()
    endif()
endfunction()

set(yyjson_dir "${nexus_source_yyjson-sys}/yyjson/src")
nexus_foreign_library(yyjson "${yyjson_dir}" "${yyjson_dir}/yyjson.c")
set(llhttp_dir "${nexus_source_libnghttp2-sys}/nghttp2/third-party/llhttp")
nexus_foreign_library(llhttp "${llhttp_dir}/include"
    "${llhttp_dir}/src/api.c" "${llhttp_dir}/src/http.c" "${llhttp_dir}/src/llhttp.c")
set(NEXUS_QUICKJS_DIR "${nexus_source_rquickjs-sys}/quickjs" CACHE INTERNAL "C source of quickjs-ng, for the toolbox")
