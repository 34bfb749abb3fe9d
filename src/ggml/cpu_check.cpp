// SPDX-License-Identifier: MIT
/// On a CPU that lacks what the engine's own part was compiled for: a sentence and the end, before its first
/// illegal instruction. The tiers need no such check, they are chosen by what the CPU has.
#include "kernels/tier.h"

#if defined(TRIT_X86) && defined(__GNUC__)

#include <cstdlib>
#ifdef _WIN32
#include <io.h>
#else
#include <unistd.h>
#endif

namespace {

constexpr unsigned kNeeded = 0u
#ifdef __AVX2__
                             | TRIT_X86_AVX2
#endif
#ifdef __FMA__
                             | TRIT_X86_FMA
#endif
#ifdef __F16C__
                             | TRIT_X86_F16C
#endif
#ifdef __AVX512F__
                             | TRIT_X86_AVX512F
#endif
#ifdef __AVX512BW__
                             | TRIT_X86_AVX512BW
#endif
#ifdef __AVX512VL__
                             | TRIT_X86_AVX512VL
#endif
#ifdef __AVX512DQ__
                             | TRIT_X86_AVX512DQ
#endif
#ifdef __AVX512VBMI__
                             | TRIT_X86_AVX512VBMI
#endif
#ifdef __AVX512VNNI__
                             | TRIT_X86_AVX512VNNI
#endif
#ifdef __AVXVNNI__
                             | TRIT_X86_AVXVNNI
#endif
#ifdef __AMX_INT8__
                             | TRIT_X86_AMX_TILE | TRIT_X86_AMX_INT8
#endif
    ;

/// The first priority that is not the implementation's: other initialisers may hold what the CPU lacks.
__attribute__((constructor(101))) void check() {
    if (trit_x86_has(kNeeded)) {
        return;
    }
    static const char kText[] =
        "error: this engine was compiled for a CPU with more instruction sets "
#ifdef __AVX512F__
        "(AVX-512)"
#else
        "(AVX2, FMA, F16C)"
#endif
#ifdef TRIT_BUNDLE
        " than this one has; set up a checkout of trit.cpp, which compiles one for it\n";
#else
        " than this one has; compile it on this machine: python3 setup_env.py --clean\n";
#endif
    [[maybe_unused]] const auto written = write(2, kText, sizeof(kText) - 1);
    std::_Exit(2);
}

}  // namespace

#endif
