# Compiler, warnings, sanitizers, linker: the dialect of this code base.
include(CheckCCompilerFlag)

set(NEXUS_WARNINGS
    -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef
    -Wcast-qual -Wwrite-strings -Wformat=2 -Wno-format-truncation -Wimplicit-fallthrough -Wswitch-enum)
set(NEXUS_FRAME_WARNING -Wframe-larger-than=2048)   # coroutine stacks are small
set(NEXUS_CODE
    -fno-strict-aliasing -fno-omit-frame-pointer -fstack-protector-strong -fstack-clash-protection
    -ffunction-sections -fdata-sections)

check_c_compiler_flag(-ftrivial-auto-var-init=zero NEXUS_CAN_ZERO_INIT)
if(NEXUS_CAN_ZERO_INIT)
    list(APPEND NEXUS_CODE -ftrivial-auto-var-init=zero)
endif()
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
    list(APPEND NEXUS_WARNINGS -Wno-error=maybe-uninitialized)      # gcc guesses; a guess does not stop the build
    if(NEXUS_KIND MATCHES "asan|tsan|coverage")
        list(APPEND NEXUS_WARNINGS -Wno-maybe-uninitialized)        # and guesses badly in instrumented code
    endif()
endif()
if(CMAKE_C_COMPILER_ID MATCHES Clang)
    list(REMOVE_ITEM NEXUS_WARNINGS -Wno-format-truncation)
    list(APPEND NEXUS_WARNINGS -Wno-gnu-statement-expression)
endif()

set(NEXUS_LINK -Wl,--gc-sections -Wl,--as-needed -Wl,-z,relro -Wl,-z,now -Wl,--build-id)
find_program(NEXUS_LLD ld.lld)
if(NEXUS_LLD)
    list(APPEND NEXUS_LINK -fuse-ld=lld)            # the native archive is large; GNU ld takes many times as long
endif()

# The program itself is optimised as a whole in a release (gcc with gold; lld does not know gcc's plugin).  The objects are
# complete too, so that tests and benches link as quickly as ever.
find_program(NEXUS_GOLD ld.gold)
option(NEXUS_WHOLE_PROGRAM "optimise a release's program as a whole" ON)
set(NEXUS_WHOLE_COMPILE "")
set(NEXUS_WHOLE_LINK "")
if(NEXUS_KIND STREQUAL "release" AND NEXUS_WHOLE_PROGRAM AND NEXUS_GOLD AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
    set(NEXUS_WHOLE_COMPILE -flto -ffat-lto-objects)
    set(NEXUS_WHOLE_LINK -flto=auto -O2 -fuse-ld=gold ${NEXUS_FRAME_WARNING})
endif()

find_program(NEXUS_CCACHE ccache)
if(NEXUS_CCACHE)
    set(CMAKE_C_COMPILER_LAUNCHER "${NEXUS_CCACHE}")
endif()

add_compile_definitions(_GNU_SOURCE)
add_compile_options(-g)
set(NEXUS_HAS_FAULTS ON)
set(NEXUS_HAS_JEMALLOC OFF)
set(NEXUS_TEST_ENVIRONMENT "")

if(NEXUS_KIND STREQUAL "release")
    add_compile_options(-O2)
    add_compile_definitions(_FORTIFY_SOURCE=3)
    # One program: nothing in it is replaced at load time, so calls may be inlined and names need no table.
    add_compile_options(-fvisibility=hidden -fno-semantic-interposition ${NEXUS_WHOLE_COMPILE})
    # gcc clears and copies structures by `rep stos/movs`, which takes longer to start than a few hundred bytes take to write.
    set(NEXUS_BLOCKS "unrolled_loop:128:noalign,libcall:-1:noalign")
    check_c_compiler_flag("-mmemset-strategy=${NEXUS_BLOCKS} -mmemcpy-strategy=${NEXUS_BLOCKS}" NEXUS_CAN_CHOOSE_BLOCKS)
    if(NEXUS_CAN_CHOOSE_BLOCKS)
        add_compile_options("-mmemset-strategy=${NEXUS_BLOCKS}" "-mmemcpy-strategy=${NEXUS_BLOCKS}")
    endif()
    set(NEXUS_HAS_FAULTS OFF)
    set(NEXUS_HAS_JEMALLOC ON)
elseif(NEXUS_KIND STREQUAL "dev")
    add_compile_options(-O1)
elseif(NEXUS_KIND STREQUAL "sim")
    add_compile_options(-O2)
elseif(NEXUS_KIND STREQUAL "asan")
    add_compile_options(-O1 -fsanitize=address,undefined -fno-sanitize-recover=all)
    add_link_options(-fsanitize=address,undefined)
    set(NEXUS_FRAME_WARNING "")                     # red zones make every frame larger
    set(NEXUS_TEST_ENVIRONMENT
        "ASAN_OPTIONS=detect_stack_use_after_return=0:strict_string_checks=1:check_initialization_order=1"
        "UBSAN_OPTIONS=print_stacktrace=1")
elseif(NEXUS_KIND STREQUAL "tsan")
    add_compile_options(-O1 -fsanitize=thread)
    add_link_options(-fsanitize=thread)
    set(NEXUS_FRAME_WARNING "")
    set(NEXUS_TEST_ENVIRONMENT "TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1")
elseif(NEXUS_KIND STREQUAL "coverage")
    add_compile_options(-O0 --coverage)
    add_link_options(--coverage)
    set(NEXUS_FRAME_WARNING "")
elseif(NEXUS_KIND STREQUAL "fuzz")
    if(NOT CMAKE_C_COMPILER_ID MATCHES Clang)
        message(FATAL_ERROR "the fuzz preset needs clang (libFuzzer)")
    endif()
    add_compile_options(-O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
    add_link_options(-fsanitize=address,undefined)
    set(NEXUS_FRAME_WARNING "")
    add_compile_definitions(FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION=1)
else()
    message(FATAL_ERROR "NEXUS_KIND is '${NEXUS_KIND}': use a preset (cmake --preset dev)")
endif()

if(NEXUS_HAS_FAULTS)
    add_compile_definitions(NEXUS_FAULTS=1)
endif()
option(NEXUS_WERROR "warnings are errors" ON)
add_link_options(${NEXUS_LINK})

# Our own code is held to the warnings; foreign C and generated files are not.
function(nexus_own_code target)
    target_compile_options(${target} PRIVATE ${NEXUS_WARNINGS} ${NEXUS_CODE} ${NEXUS_FRAME_WARNING}
        $<$<BOOL:${NEXUS_WERROR}>:-Werror>)
    target_compile_options(${target} PRIVATE "SHELL:-include base/banned.h")
    target_include_directories(${target} PRIVATE "${CMAKE_SOURCE_DIR}/src")
endfunction()
