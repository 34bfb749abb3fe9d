# A toolchain file: cross-compiles with the clang, the linker and the C libraries of the PyPI package ziglang.
#   cmake -S . -B FOLDER -G Ninja -DCMAKE_TOOLCHAIN_FILE=cmake/zig.cmake -DTRIT_ZIG_TARGET=aarch64-linux-gnu.2.28
# TRIT_ZIG names the program zig; without it, it is looked for in PATH, then in the package of Python's.
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES TRIT_ZIG_TARGET TRIT_ZIG)

if(NOT TRIT_ZIG_TARGET MATCHES "^([a-z0-9_]+)-(linux|windows|macos)([-.].*)?$")
    message(FATAL_ERROR "TRIT_ZIG_TARGET is '${TRIT_ZIG_TARGET}', expected CPU-SYSTEM-ABI, "
        "for example x86_64-linux-gnu.2.17, x86_64-windows-gnu or aarch64-macos.")
endif()
set(TRIT_ZIG_CPU ${CMAKE_MATCH_1})
set(CMAKE_SYSTEM_PROCESSOR ${TRIT_ZIG_CPU})
if(CMAKE_MATCH_2 STREQUAL "linux")
    set(CMAKE_SYSTEM_NAME Linux)
elseif(CMAKE_MATCH_2 STREQUAL "windows")
    set(CMAKE_SYSTEM_NAME Windows)
else()
    set(CMAKE_SYSTEM_NAME Darwin)
    # CMake asks for a tool that changes paths where files are installed, which is not done here: it would be an error.
    set(CMAKE_INSTALL_NAME_TOOL ${CMAKE_COMMAND})
endif()
if(TRIT_ZIG_CPU STREQUAL "arm")
    set(CMAKE_SYSTEM_PROCESSOR armv7)
elseif(TRIT_ZIG_CPU STREQUAL "aarch64" AND CMAKE_SYSTEM_NAME STREQUAL "Darwin")
    set(CMAKE_SYSTEM_PROCESSOR arm64)
endif()

if(NOT TRIT_ZIG)
    find_program(TRIT_ZIG zig NO_CMAKE_FIND_ROOT_PATH)
endif()
if(NOT TRIT_ZIG)
    find_program(TRIT_PYTHON NAMES python3 python REQUIRED NO_CMAKE_FIND_ROOT_PATH)
    execute_process(COMMAND ${TRIT_PYTHON} -c
        "import pathlib, sys, ziglang; print(pathlib.Path(ziglang.__file__).with_name('zig.exe' if sys.platform == 'win32' else 'zig').as_posix())"
        OUTPUT_VARIABLE TRIT_ZIG_FOUND OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(NOT TRIT_ZIG_FOUND)
        message(FATAL_ERROR "zig is not there: install it with `pip install ziglang`, or name it by -DTRIT_ZIG=FILE.")
    endif()
    set(TRIT_ZIG ${TRIT_ZIG_FOUND} CACHE FILEPATH "The program zig" FORCE)
endif()

# CMake wants programs without arguments. What is written again with the same text keeps its time, for ccache.
function(trit_zig_wrapper variable name words)
    if(CMAKE_HOST_WIN32)
        set(file ${CMAKE_BINARY_DIR}/zig/${name}.cmd)
        set(text "@\"${TRIT_ZIG}\" ${words} %*\r\n")
    else()
        set(file ${CMAKE_BINARY_DIR}/zig/${name})
        set(text "#!/bin/sh\nexec '${TRIT_ZIG}' ${words} \"$@\"\n")
    endif()
    file(CONFIGURE OUTPUT ${file} CONTENT "${text}" @ONLY)
    if(NOT CMAKE_HOST_WIN32)
        file(CHMOD ${file} PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
    endif()
    set(${variable} ${file} PARENT_SCOPE)
endfunction()
trit_zig_wrapper(CMAKE_C_COMPILER zig-cc "cc -target ${TRIT_ZIG_TARGET}")
trit_zig_wrapper(CMAKE_CXX_COMPILER zig-c++ "c++ -target ${TRIT_ZIG_TARGET}")
trit_zig_wrapper(CMAKE_AR zig-ar ar)
trit_zig_wrapper(CMAKE_RANLIB zig-ranlib ranlib)
trit_zig_wrapper(CMAKE_RC_COMPILER zig-rc rc)
set(CMAKE_RC_COMPILE_OBJECT "<CMAKE_RC_COMPILER> /:auto-includes none /fo <OBJECT> -- <SOURCE>")

# zig links its C++ library into everything: two libraries with a copy each free each other's objects.
set(BUILD_SHARED_LIBS OFF CACHE BOOL "" FORCE)
# Its linker writes no list of what it read.
set(CMAKE_LINK_DEPENDS_USE_LINKER OFF)

set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
foreach(kind IN ITEMS LIBRARY INCLUDE PACKAGE)
    set(CMAKE_FIND_ROOT_PATH_MODE_${kind} ONLY)
endforeach()
