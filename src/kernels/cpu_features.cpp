// SPDX-License-Identifier: MIT
/// What this CPU has. Apart from the tiers, so that a library of kernels alone links with it (utils/tune).
#include "kernels/tier.h"

#ifdef TRIT_EMULATE_AVX512
#include "emulated_features.h"
#endif

#if defined(TRIT_X86) && defined(_MSC_VER)
#include <intrin.h>
#elif defined(TRIT_X86)
#include <cpuid.h>
#endif

#if defined(TRIT_X86) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(TRIT_ARM64) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(TRIT_ARM64) && defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(TRIT_ARM64) && defined(_WIN32)
#define NOMINMAX
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#endif

namespace {

#ifdef TRIT_X86
/// Extended control register 0: which register files the operating system saves (Intel SDM vol. 1, 13.3).
unsigned xcr0() {
#if defined(_MSC_VER)
    return static_cast<unsigned>(_xgetbv(0));
#else
    unsigned low = 0;
    unsigned high = 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
#endif
}

unsigned detect_x86() {
    unsigned r[4] = {0, 0, 0, 0};
    trit_x86_cpuid(0, 0, r);
    if (r[0] < 7) {
        return 0;
    }
    trit_x86_cpuid(1, 0, r);
    const bool fma = (r[2] >> 12) & 1;
    const bool f16c = (r[2] >> 29) & 1;
    const bool osxsave = (r[2] >> 27) & 1;
    const unsigned saved = osxsave ? xcr0() : 0;
    const bool ymm = (saved & 0x06u) == 0x06u;
    const bool zmm = (saved & 0xE6u) == 0xE6u;
    const bool tiles = (saved & 0x60000u) == 0x60000u;
    trit_x86_cpuid(7, 0, r);
    unsigned found = 0;
    if (ymm) {
        found |= (r[1] >> 5) & 1 ? TRIT_X86_AVX2 : 0u;
        found |= fma ? TRIT_X86_FMA : 0u;
        found |= f16c ? TRIT_X86_F16C : 0u;
    }
    if (zmm) {
        found |= (r[1] >> 16) & 1 ? TRIT_X86_AVX512F : 0u;
        found |= (r[1] >> 17) & 1 ? TRIT_X86_AVX512DQ : 0u;
        found |= (r[1] >> 30) & 1 ? TRIT_X86_AVX512BW : 0u;
        found |= (r[1] >> 31) & 1 ? TRIT_X86_AVX512VL : 0u;
        found |= (r[2] >> 1) & 1 ? TRIT_X86_AVX512VBMI : 0u;
        found |= (r[2] >> 11) & 1 ? TRIT_X86_AVX512VNNI : 0u;
    }
    if (tiles) {
        found |= (r[3] >> 24) & 1 ? TRIT_X86_AMX_TILE : 0u;
        found |= (r[3] >> 25) & 1 ? TRIT_X86_AMX_INT8 : 0u;
    }
    const unsigned subleaves = r[0];
    if (ymm && subleaves >= 1) {
        trit_x86_cpuid(7, 1, r);
        found |= (r[0] >> 4) & 1 ? TRIT_X86_AVXVNNI : 0u;
    }
#ifdef TRIT_EMULATE_AVX512
    found = emulated_features(found);
#endif
    return found;
}
#endif

#ifdef TRIT_ARM64
#if defined(__APPLE__)
bool has_feature(const char* name) {
    int value = 0;
    size_t bytes = sizeof(value);
    return sysctlbyname(name, &value, &bytes, nullptr, 0) == 0 && value != 0;
}
#endif

unsigned detect_arm() {
    bool dotprod = false;
    bool i8mm = false;
#if defined(__linux__)
    // Documentation/arch/arm64/elf_hwcaps.rst: HWCAP_ASIMDDP and HWCAP2_I8MM, which old headers lack.
    dotprod = (getauxval(AT_HWCAP) >> 20) & 1;
    i8mm = (getauxval(AT_HWCAP2) >> 13) & 1;
#elif defined(__APPLE__)
    dotprod = has_feature("hw.optional.arm.FEAT_DotProd");
    i8mm = has_feature("hw.optional.arm.FEAT_I8MM");
#elif defined(_WIN32)
    // winnt.h: PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE and PF_ARM_V82_I8MM_INSTRUCTIONS_AVAILABLE.
    dotprod = IsProcessorFeaturePresent(43) != 0;
    i8mm = IsProcessorFeaturePresent(66) != 0;
#endif
    return (dotprod ? TRIT_ARM_DOTPROD : 0u) | (i8mm ? TRIT_ARM_I8MM : 0u);
}
#endif

}  // namespace

#ifdef TRIT_ARM64
int trit_arm_has(unsigned features) {
    static const unsigned found = detect_arm();
    return (found & features) == features;
}
#endif

#ifdef TRIT_X86
void trit_x86_cpuid(unsigned leaf, unsigned subleaf, unsigned regs[4]) {
#if defined(_MSC_VER)
    __cpuidex(reinterpret_cast<int*>(regs), static_cast<int>(leaf), static_cast<int>(subleaf));
#else
    __cpuid_count(leaf, subleaf, regs[0], regs[1], regs[2], regs[3]);
#endif
}

int trit_x86_has(unsigned features) {
    static const unsigned found = detect_x86();
    return (found & features) == features;
}

int trit_x86_allow_amx(void) {
#if defined(__linux__)
    // Documentation/arch/x86/xstate.rst: ARCH_REQ_XCOMP_PERM for XFEATURE_XTILEDATA.
    constexpr long kRequestPermission = 0x1023;
    constexpr long kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return 1;
#endif
}
#endif
