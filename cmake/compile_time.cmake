# What shortens the compilation of upstream's part, which is most of set-up's time.

# Sets `result` to those sources of a target whose paths in its folder, without the ending, match `pattern`.
function(trit_sources_like result target pattern)
    get_target_property(sources ${target} SOURCES)
    get_target_property(folder ${target} SOURCE_DIR)
    set(found "")
    foreach(source IN LISTS sources)
        cmake_path(ABSOLUTE_PATH source BASE_DIRECTORY ${folder} NORMALIZE)
        cmake_path(RELATIVE_PATH source BASE_DIRECTORY ${folder} OUTPUT_VARIABLE name)
        if(name MATCHES "^(${pattern})\\.c(pp)?$")
            list(APPEND found ${source})
        endif()
    endforeach()
    if(NOT found)
        message(FATAL_ERROR "${target} has no source like ${pattern}: mend cmake/compile_time.cmake")
    endif()
    set(${result} ${found} PARENT_SCOPE)
endfunction()

# Sources that include the same headers become one compilation.
function(trit_together target group pattern)
    trit_sources_like(sources ${target} "${pattern}")
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
    # What they hold together may be more sections than an object file of Windows has by default.
    if(MSVC)
        target_compile_options(${target} PRIVATE /bigobj)
    elseif(MINGW AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        target_compile_options(${target} PRIVATE -Wa,-mbig-obj)
    endif()
    set_source_files_properties(${sources} TARGET_DIRECTORY ${target} PROPERTIES UNITY_GROUP ${group})
endfunction()

# Code that runs once per start or request is compiled with -O1, in half the time of -O3, or as small as can be for a
# wheel. What follows the target's name are sources that run for each token or weight and stay at -O3.
function(trit_optimise_little target)
    if(MSVC OR TRIT_SANITIZE OR NOT CMAKE_BUILD_TYPE STREQUAL "Release")
        return()
    endif()
    target_compile_options(${target} PRIVATE $<IF:$<BOOL:${TRIT_BUNDLE}>,-Os,-O1>)
    foreach(pattern IN LISTS ARGN)
        trit_sources_like(sources ${target} "${pattern}")
        set_source_files_properties(${sources} TARGET_DIRECTORY ${target} PROPERTIES COMPILE_OPTIONS -O3)
    endforeach()
endfunction()

trit_together(llama-common chat "chat(-.*)?|parsers/.*|peg-parser")
trit_together(llama-common jinja "jinja/.*")
trit_together(llama-common other "console|debug|fit|hf-cache|imatrix-loader|json-schema|llguidance|preset|download")
trit_together(server-context parts "server-(chat|common|mcp|queue|schema|stream|task|tools)")
trit_together(llama-server-impl server "server.*")
trit_together(mtmd models "models/.*")
trit_together(trit_schema schema "src/schema/.*")
# Their files each define a macro of this name.
set_target_properties(llama-common PROPERTIES UNITY_BUILD_CODE_BEFORE_INCLUDE "#undef FILENAME")
# Upstream's groups of 16 of its architectures.
set_target_properties(llama PROPERTIES UNITY_BUILD_BATCH_SIZE 40)
trit_optimise_little(llama "llama|llama-(batch|context|grammar|graph|impl|io|kv-.*|memory.*|mmap|quant|sampler|vocab)"
    "unicode")
trit_optimise_little(ggml-base "ggml|ggml-(alloc|backend|quants|threading)|.*/(encodings|validate)")
trit_optimise_little(llama-common "sampling|speculative|ngram-.*|trie|unicode")
trit_optimise_little(mtmd "mtmd-audio|mtmd-image")
foreach(target IN ITEMS server-context llama-server-impl llama-cli-impl llama-completion-impl llama-bench-impl
    llama-quantize-impl llama-perplexity-impl cpp-httplib trit_tuning_file trit_schema trit_rotation trit_arguments
    trit_access)
    trit_optimise_little(${target})
endforeach()
