# cmake --install BUILD --prefix PREFIX: PREFIX/bin/nexus, and PREFIX/share/nexus/ with what belongs to it, where the program looks
# (src/cli/shipped.c).  A folder that ships gets its line here.
include(GNUInstallDirs)

function(nexus_install)
    set(share "${CMAKE_INSTALL_DATADIR}/nexus")
    install(TARGETS nexus RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
    install(DIRECTORY policies DESTINATION "${share}" FILES_MATCHING PATTERN "*.rego")
    install(DIRECTORY prices workflows DESTINATION "${share}" FILES_MATCHING PATTERN "*.yaml")
    install(DIRECTORY "${CMAKE_BINARY_DIR}/toolbox" DESTINATION "${share}"      # built by the target toolbox
        FILES_MATCHING PATTERN "manifest.yaml" PATTERN "*.wasm" PATTERN "objects" EXCLUDE PATTERN "CMakeFiles" EXCLUDE)
    install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DOCDIR}")
endfunction()
