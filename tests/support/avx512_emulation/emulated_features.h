// SPDX-License-Identifier: MIT
/// CPUs that have AVX-512, for a build in which its instructions are functions.
#ifndef TRIT_AVX512_EMULATION_EMULATED_FEATURES_H
#define TRIT_AVX512_EMULATION_EMULATED_FEATURES_H

#include <cstdlib>
#include <cstring>

#include "kernels/tier.h"

/// found: what the CPU has. EMULATED_CPU: one of the names below; without it the last one.
inline unsigned emulated_features(unsigned found) {
    constexpr unsigned kWide = TRIT_X86_AVX512F | TRIT_X86_AVX512BW | TRIT_X86_AVX512VL | TRIT_X86_AVX512DQ;
    constexpr unsigned kBytes = kWide | TRIT_X86_AVX512VNNI | TRIT_X86_AVX512VBMI;
    struct Cpu {
        const char* name;
        unsigned features;
    };
    static constexpr Cpu kCpus[] = {
        {"haswell", 0},
        {"alder-lake", TRIT_X86_AVXVNNI},
        {"skylake-x", kWide},
        {"cascade-lake", kWide | TRIT_X86_AVX512VNNI},
        {"ice-lake", kBytes},
        {"sapphire-rapids", kBytes | TRIT_X86_AVXVNNI | TRIT_X86_AMX_TILE | TRIT_X86_AMX_INT8},
    };
    const char* wanted = std::getenv("EMULATED_CPU");
    unsigned features = 0;
    for (const Cpu& cpu : kCpus) {
        features = cpu.features;
        if (wanted != nullptr && std::strcmp(cpu.name, wanted) == 0) {
            break;
        }
    }
    return (found & (TRIT_X86_AVX2 | TRIT_X86_FMA | TRIT_X86_F16C)) | features;
}

#endif  // TRIT_AVX512_EMULATION_EMULATED_FEATURES_H
