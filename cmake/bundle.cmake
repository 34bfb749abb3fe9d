# TRIT_BUNDLE: the folder bundle/ has one library with all programs, and beside it a small program of each name.
# Each with a copy of the engine, twelve programs would not fit a small wheel.
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

add_library(trit_bundle SHARED src/tools/bundle.cpp ${TRIT_MAINS}
    src/tools/kernel_library.cpp $<TARGET_OBJECTS:trit_measure>)
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
    trit_programs(bundled-${program})
    set_target_properties(bundled-${program} PROPERTIES OUTPUT_NAME ${program}
        RUNTIME_OUTPUT_DIRECTORY ${TRIT_BUNDLE_DIR})
    add_dependencies(trit-engine bundled-${program})
endforeach()
