// SPDX-License-Identifier: MIT
/// `preset_choice [NAME=VALUE,...]...`: which preset src/matrix/tuning_file.cpp uses on a made-up CPU, a core
/// an argument. The presets, in trit_presets.inc, have one shape each, in panels of five trits: preset i has
/// 64 * 8^i rows and 32 inputs, out of reach of the others. Prints i, or "none"; the lines behind it say what
/// this machine's cores are.
#include <cstdio>
#include <string>
#include <vector>

#include "kernels/cpu_identity.h"
#include "matrix/tuning.h"
#include "matrix/tuning_file.h"

int main(int argc, char** argv) {
    std::vector<trit::CpuCore> cores;
    for (int i = 1; i < argc; ++i) {
        cores.emplace_back();
        const std::string text = std::string(argv[i]) + ",";
        for (size_t at = 0; at + 1 < text.size(); at = text.find(',', at) + 1) {
            const size_t equals = text.find('=', at);
            cores.back()[text.substr(at, equals - at)] =
                text.substr(equals + 1, text.find(',', at) - equals - 1);
        }
    }
    trit::load_tuning(cores);
    std::string found = "none";
    for (int i = 0; i < 8; ++i) {
        const int64_t n = int64_t{1} << (6 + 3 * i);
        if (trit::tuned_packing(n, 32) == TRIT_PACKING_5_TRITS) {
            found = std::to_string(i);
        }
    }
    std::printf("%s\n", found.c_str());
    for (const trit::CpuCore& core : trit::cpu_cores()) {
        for (const auto& [name, value] : core) {
            std::printf("%s=%s,", name.c_str(), value.c_str());
        }
        std::printf("\n");
    }
    return 0;
}
