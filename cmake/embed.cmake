# The SQL migrations as C: build/generated/store_migrations.h.  A changed or new file configures anew.
function(nexus_embed_migrations part folder)
    file(GLOB files CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/${folder}/*.sql")
    list(SORT files)
    set(texts "")
    set(rows "")
    foreach(file IN LISTS files)
        set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${file}")
        get_filename_component(name "${file}" NAME_WE)
        string(REGEX REPLACE "^0*([0-9]+)_.*$" "\\1" version "${name}")
        string(REGEX REPLACE "^[0-9]+_" "" title "${name}")
        file(READ "${file}" bytes HEX)
        string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
        string(APPEND texts "static const char migration_${version}[] = {${bytes}};\n")
        string(APPEND rows "    {${version}, \"${title}\", {migration_${version}, sizeof migration_${version}}},\n")
    endforeach()
    file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/generated/store_migrations.h" @ONLY CONTENT
"/* Made from ${folder} by cmake/embed.cmake. */
struct migration {
    int version;
    const char *name;
    str sql;
};
${texts}static const struct migration migrations[] = {
${rows}};
")
    get_target_property(type nexus_${part} TYPE)
    if(NOT type STREQUAL "INTERFACE_LIBRARY")
        target_include_directories(nexus_${part} PRIVATE "${CMAKE_BINARY_DIR}/generated")
    endif()
endfunction()

# A folder of text files as C: build/generated/<name>.h with an array `<name>` of {path in the folder, bytes}.
function(nexus_embed_folder part folder name)
    file(GLOB_RECURSE files RELATIVE "${CMAKE_SOURCE_DIR}/${folder}" CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/${folder}/*")
    list(SORT files)
    set(texts "")
    set(rows "")
    set(index 0)
    foreach(file IN LISTS files)
        set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/${folder}/${file}")
        file(READ "${CMAKE_SOURCE_DIR}/${folder}/${file}" bytes HEX)
        string(REGEX REPLACE "(..)" "'\\\\x\\1'," bytes "${bytes}")
        string(APPEND texts "static const char ${name}_${index}[] = {${bytes}};\n")
        string(APPEND rows "    {\"${file}\", {${name}_${index}, sizeof ${name}_${index}}},\n")
        math(EXPR index "${index} + 1")
    endforeach()
    file(WRITE "${CMAKE_BINARY_DIR}/generated/${name}.h.new"
"/* Made from ${folder} by cmake/embed.cmake. */
struct embedded_file {
    const char *path;
    str bytes;
};
${texts}static const struct embedded_file ${name}[] = {
${rows}};
")
    file(COPY_FILE "${CMAKE_BINARY_DIR}/generated/${name}.h.new" "${CMAKE_BINARY_DIR}/generated/${name}.h" ONLY_IF_DIFFERENT)
    target_include_directories(nexus_${part} PRIVATE "${CMAKE_BINARY_DIR}/generated")
endfunction()
