// SPDX-License-Identifier: MIT
/// All programs in one library: what they share is there once, the C++ library included, of which the host
/// then needs none.
#include "tools/bundle.h"

#include <cstdio>
#include <cstring>

// The engine's own names; ours are their `main`, renamed by CMakeLists.txt.
int llama_bench(int argc, char** argv);
int llama_cli(int argc, char** argv);
int llama_completion(int argc, char** argv);
int llama_perplexity(int argc, char** argv);
int llama_quantize(int argc, char** argv);
int llama_server(int argc, char** argv);
int trit_bench_main(int argc, char** argv);
int trit_describe_main(int argc, char** argv);
int trit_roofline_main(int argc, char** argv);
int trit_selftest_main(int argc, char** argv);
int trit_tune_main(int argc, char** argv);
int trit_vocabulary_main(int argc, char** argv);

namespace {

struct Program {
    const char* name;
    int (*run)(int argc, char** argv);
};

constexpr Program kPrograms[] = {
    {"llama-bench", llama_bench},           {"llama-cli", llama_cli},
    {"llama-completion", llama_completion}, {"llama-perplexity", llama_perplexity},
    {"llama-quantize", llama_quantize},     {"llama-server", llama_server},
    {"trit-bench", trit_bench_main},        {"trit-describe", trit_describe_main},
    {"trit-roofline", trit_roofline_main},  {"trit-selftest", trit_selftest_main},
    {"trit-tune", trit_tune_main},          {"trit-vocabulary", trit_vocabulary_main},
};

}  // namespace

int trit_program(const char* name, int argc, char** argv) {
    for (const Program& program : kPrograms) {
        if (std::strcmp(program.name, name) == 0) {
            return program.run(argc, argv);
        }
    }
    std::fprintf(stderr, "error: this library has no program %s; install the package again\n", name);
    return 127;
}
