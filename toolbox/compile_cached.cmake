# cmake -P: takes an object file from the cache, or compiles it and leaves it there.  From the environment:
# COMMAND (words parted by |, without -o), CACHED (file in the cache), OBJECT (where it is wanted).  An entry appears by rename,
# complete or not at all, so builds that run at the same time do not disturb each other.
set(cached "$ENV{CACHED}")
if(NOT EXISTS "${cached}")
    get_filename_component(folder "${cached}" DIRECTORY)
    file(MAKE_DIRECTORY "${folder}")
    string(RANDOM LENGTH 12 suffix)
    string(REPLACE "|" ";" command "$ENV{COMMAND}")
    execute_process(COMMAND ${command} -o "${cached}.${suffix}" RESULT_VARIABLE status)
    if(NOT status EQUAL 0)
        file(REMOVE "${cached}.${suffix}")
        message(FATAL_ERROR "could not compile $ENV{OBJECT}")
    endif()
    file(RENAME "${cached}.${suffix}" "${cached}")
endif()
configure_file("${cached}" "$ENV{OBJECT}" COPYONLY)
file(TOUCH "$ENV{OBJECT}")
