# TRIT_BUNDLE: the folder bundle/ has one library with all programs, and beside it a small program of each name.
# Programs that share nothing would be three times as large.
set(TRIT_PROGRAMS llama-bench llama-cli llama-completion llama-perplexity llama-quantize llama-server
    trit-bench trit-describe trit-roofline trit-selftest trit-tune trit-vocabulary)

# Those of ours are compiled with another name of their `main`.
set(TRIT_MAINS src/ggml/vocabulary_main.cpp)
foreach(name IN ITEMS bench describe roofline selftest tune)
    list(APPEND TRIT_MAINS src/tools/${name}_main.cpp)
endforeach()
foreach(source IN LISTS TRIT_MAINS)
    get_filename_component(stem ${source} NAME_WE)
    set_source_files_properties(${source} PROPERTIES COMPILE_DEFINITIONS main=trit_${stem})
endforeach()

# Upstream's files are many and small behind the same large headers: eight to twelve of them are compiled at a time,
# which takes a third of the time. Those left out have helpers with the names of another file's.
set(TRIT_ALONE "/(glm5-next|deepseekocr|pockettts-seanet|llama-kv-cache-dsv4|llama-quant|json|preset|server-stream).cpp$")
function(trit_together target name size folder)
    file(GLOB sources ${folder}/*.cpp)
    list(FILTER sources EXCLUDE REGEX ${TRIT_ALONE})
    set(count 0)
    foreach(source IN LISTS sources)
        math(EXPR group "${count} / ${size}")
        math(EXPR count "${count} + 1")
        set_source_files_properties(${source} TARGET_DIRECTORY ${target} PROPERTIES
            UNITY_GROUP ${name}_${group} SKIP_UNITY_BUILD_INCLUSION OFF)
    endforeach()
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
endfunction()
trit_together(llama graphs 12 ${TRIT_ENGINE_DIR}/src/models)
trit_together(llama core 8 ${TRIT_ENGINE_DIR}/src)
trit_together(mtmd graphs 12 ${TRIT_ENGINE_DIR}/tools/mtmd/models)
trit_together(llama-common common 8 ${TRIT_ENGINE_DIR}/common)
trit_together(llama-common parsers 8 ${TRIT_ENGINE_DIR}/common/parsers)
trit_together(llama-common jinja 8 ${TRIT_ENGINE_DIR}/common/jinja)
trit_together(server-context server 8 ${TRIT_ENGINE_DIR}/tools/server)

# Kernels are where speed is; the rest is most of the size.
foreach(target IN ITEMS llama llama-common)
    target_compile_options(${target} PRIVATE $<$<NOT:$<CXX_COMPILER_ID:MSVC>>:-O2>)
endforeach()
foreach(target IN ITEMS mtmd server-context llama-server-impl llama-cli-impl llama-bench-impl llama-perplexity-impl
        llama-quantize-impl cpp-httplib)
    target_compile_options(${target} PRIVATE $<$<NOT:$<CXX_COMPILER_ID:MSVC>>:-Os>)
endforeach()

add_library(trit_bundle SHARED src/tools/bundle.cpp ${TRIT_MAINS}
    src/tools/kernel_library.cpp src/tools/measure.cpp src/tools/product.cpp)
target_include_directories(trit_bundle PRIVATE include src)
target_compile_definitions(trit_bundle PRIVATE TRIT_BUILD)
target_include_directories(trit_bundle SYSTEM PRIVATE ${TRIT_ENGINE_DIR}/common ${TRIT_ENGINE_DIR}/include
    ${TRIT_ENGINE_DIR}/ggml/include ${TRIT_ENGINE_DIR}/vendor)
target_link_libraries(trit_bundle PRIVATE llama-bench-impl llama-cli-impl llama-completion-impl llama-perplexity-impl
    llama-quantize-impl llama-server-impl llama-common llama ggml Threads::Threads ${CMAKE_DL_LIBS})
set(TRIT_BUNDLE_DIR ${CMAKE_BINARY_DIR}/bundle)
set_target_properties(trit_bundle PROPERTIES OUTPUT_NAME trit-engine
    LIBRARY_OUTPUT_DIRECTORY ${TRIT_BUNDLE_DIR} RUNTIME_OUTPUT_DIRECTORY ${TRIT_BUNDLE_DIR})
target_link_options(trit_bundle PRIVATE $<IF:$<PLATFORM_ID:Darwin>,-Wl$<COMMA>-dead_strip,-Wl$<COMMA>--gc-sections> -s)
trit_warnings(trit_bundle)

add_custom_target(trit-engine ALL DEPENDS trit_bundle)
foreach(program IN LISTS TRIT_PROGRAMS)
    add_executable(bundled-${program} src/tools/bundle_main.c)
    target_include_directories(bundled-${program} PRIVATE include src)
    target_compile_definitions(bundled-${program} PRIVATE TRIT_PROGRAM="${program}")
    target_link_libraries(bundled-${program} PRIVATE trit_bundle)
    target_link_options(bundled-${program} PRIVATE -s)
    set_target_properties(bundled-${program} PROPERTIES OUTPUT_NAME ${program}
        RUNTIME_OUTPUT_DIRECTORY ${TRIT_BUNDLE_DIR})
    add_dependencies(trit-engine bundled-${program})
endforeach()
