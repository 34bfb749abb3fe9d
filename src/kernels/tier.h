// SPDX-License-Identifier: MIT
/// What every tier file includes: the CPU's features and the macros that open a target region.
///
/// Tier files are compiled with baseline flags. Code between TRIT_TARGET_BEGIN and TRIT_TARGET_END may use
/// the named features; everything in it is in an anonymous namespace, so that the linker can never use one of
/// its functions for another file. Nothing outside src/kernels/tiers/, src/kernels/lookup/, generated
/// kernels, panel_fields.cpp, src/ggml/floats.h and this header knows instruction sets.
#ifndef TRIT_TIER_H
#define TRIT_TIER_H

#include "trit.h"

#if defined(__x86_64__) || defined(_M_X64)
#define TRIT_X86 1
#endif
/// 64-bit ARM in little-endian order (Advanced SIMD is part of it).
#if (defined(__aarch64__) && !defined(__AARCH64EB__)) || defined(_M_ARM64)
#define TRIT_ARM64 1
#endif

#define TRIT_PRAGMA(x) _Pragma(#x)
#if defined(TRIT_EMULATE_AVX512)
// Everything is compiled for AVX2, and the compiler must not use more.
#define TRIT_TARGET_BEGIN(features)
#define TRIT_TARGET_END
#elif defined(__clang__)
#define TRIT_TARGET_BEGIN(features) \
    TRIT_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define TRIT_TARGET_END TRIT_PRAGMA(clang attribute pop)
#elif defined(__GNUC__)
#define TRIT_TARGET_BEGIN(features) TRIT_PRAGMA(GCC push_options) TRIT_PRAGMA(GCC target(features))
#define TRIT_TARGET_END TRIT_PRAGMA(GCC pop_options)
#else
#define TRIT_TARGET_BEGIN(features)
#define TRIT_TARGET_END
#endif

/// In front of a loop over registers: without full unrolling the register array would live in memory.
#if defined(__GNUC__)
#define TRIT_UNROLL _Pragma("GCC unroll 8")
#define TRIT_UNROLL_24 _Pragma("GCC unroll 24")
#else
#define TRIT_UNROLL
#define TRIT_UNROLL_24
#endif

/// In front of a part of a loop that is unrolled by a parameter pack: a call would cost more than it does.
#if defined(_MSC_VER) && !defined(__clang__)
#define TRIT_INLINE __forceinline
#else
#define TRIT_INLINE inline __attribute__((always_inline))
#endif

/// `supported` of a tier for another kind of CPU. (A lambda's function would be weak: the linker may share
/// it.)
static inline int trit_never(void) { return 0; }

/// A tier without its kernels: all that there is of it on another kind of CPU. A tier file names the others
/// where it sets them.
static constexpr trit_tier trit_absent_tier(const char* name, const char* features, int rank) {
    trit_tier tier{};
    tier.name = name;
    tier.features = features;
    tier.rank = rank;
    tier.supported = trit_never;
    return tier;
}

#ifdef TRIT_X86
/// CPU features as bits; only those that the operating system saves the registers of are set.
enum trit_x86_feature : unsigned {
    TRIT_X86_AVX2 = 1u << 0,
    TRIT_X86_FMA = 1u << 1,
    TRIT_X86_AVX512F = 1u << 2,
    TRIT_X86_AVX512BW = 1u << 3,
    TRIT_X86_AVX512VL = 1u << 4,
    TRIT_X86_AVX512DQ = 1u << 5,
    TRIT_X86_AVX512VNNI = 1u << 6,
    TRIT_X86_AVX512VBMI = 1u << 7,
    TRIT_X86_F16C = 1u << 8,
    TRIT_X86_AVXVNNI = 1u << 9,
    TRIT_X86_AMX_TILE = 1u << 10,
    TRIT_X86_AMX_INT8 = 1u << 11,
};

/// 1 if this CPU has all of `features`.
int trit_x86_has(unsigned features);
/// What the instruction of that name answers: eax, ebx, ecx, edx.
void trit_x86_cpuid(unsigned leaf, unsigned subleaf, unsigned regs[4]);
/// 1 if the operating system lets this process use AMX's tiles (Linux wants to be asked).
int trit_x86_allow_amx(void);
#endif

#ifdef TRIT_ARM64
/// CPU features as bits.
enum trit_arm_feature : unsigned {
    TRIT_ARM_DOTPROD = 1u << 0,
    TRIT_ARM_I8MM = 1u << 1,
};

/// 1 if this CPU has all of `features`.
int trit_arm_has(unsigned features);

// What TRIT_TARGET_BEGIN takes: gcc wants an architecture or an extension, clang a list of features.
#if defined(__clang__)
#define TRIT_ARM_TARGET_SIMD "neon"
#define TRIT_ARM_TARGET_DOTPROD "dotprod"
#define TRIT_ARM_TARGET_I8MM "dotprod,i8mm"
#else
#define TRIT_ARM_TARGET_SIMD "+simd"
#define TRIT_ARM_TARGET_DOTPROD "arch=armv8.2-a+dotprod"
#define TRIT_ARM_TARGET_I8MM "arch=armv8.2-a+dotprod+i8mm"
#endif
#endif

#endif  // TRIT_TIER_H
