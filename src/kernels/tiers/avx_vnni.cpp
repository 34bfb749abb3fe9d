// SPDX-License-Identifier: MIT
/// Tier avx_vnni: 256-bit vpdpbusd in its VEX form, for CPUs without AVX-512 (Alder Lake and later).
#include "kernels/tiers/simd.h"

static constexpr trit_tier kAbsent = trit_absent_tier("avx_vnni", "AVX2, F16C, AVX-VNNI", 30);

#ifdef TRIT_X86

TRIT_TARGET_BEGIN("avx2,f16c,avxvnni")
namespace {

int supported() {
#if defined(TRIT_EMULATE) && !defined(TRIT_EMULATE_AVX512)
    return trit_x86_has(TRIT_X86_AVX2 | TRIT_X86_F16C);
#else
    return trit_x86_has(TRIT_X86_AVX2 | TRIT_X86_F16C | TRIT_X86_AVXVNNI);
#endif
}

/// vpdpbusd: four neighbouring products in 32 bits; TRIT_PANEL_MAX_K inputs fit without widening.
using Lane = __m256i;
constexpr int kMostFours = 1 << 10;
Lane add(Lane lane, __m256i u, __m256i act) {
#if defined(TRIT_EMULATE)
    uint8_t codes[32];
    int8_t activations[32];
    int32_t sums[8];
    std::memcpy(codes, &u, sizeof(u));
    std::memcpy(activations, &act, sizeof(act));
    std::memcpy(sums, &lane, sizeof(lane));
    for (int i = 0; i < 32; ++i) {
        sums[i / 4] += codes[i] * activations[i];
    }
    std::memcpy(&lane, sums, sizeof(lane));
    return lane;
#elif defined(__GNUC__) && !defined(__clang__)
    // As one instruction for GCC, which otherwise copies accumulators to and fro.
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(lane) : "x"(u), "x"(act));
    return lane;
#else
    return _mm256_dpbusd_avx_epi32(lane, u, act);
#endif
}
Lane fold(Lane ones, Lane fours) { return _mm256_add_epi32(ones, _mm256_srai_epi32(fours, 2)); }
__m256i widen(Lane lane) { return lane; }

#include "kernels/tiers/avx2_in_place-inl.h"
#include "kernels/tiers/avx2_panel-inl.h"

}  // namespace
TRIT_TARGET_END

#include "kernels/tiers/kernels-inl.h"

extern "C" const trit_tier trit_tier_avx_vnni = with_kernels(kAbsent);

#else

extern "C" const trit_tier trit_tier_avx_vnni = kAbsent;

#endif
