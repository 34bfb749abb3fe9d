// SPDX-License-Identifier: MIT
/// Tier avx2: 256-bit integers without a dot-product instruction. Needs AVX2 and F16C (every CPU with the one
/// has the other).
#include "kernels/tiers/simd.h"

static constexpr trit_tier kAbsent = trit_absent_tier("avx2", "AVX2, F16C", 20);

#ifdef TRIT_X86

TRIT_TARGET_BEGIN("avx2,f16c")
namespace {

int supported() { return trit_x86_has(TRIT_X86_AVX2 | TRIT_X86_F16C); }

/// vpmaddubsw: two neighbouring products in 16 bits, at most 2 * 3 * 128 = 768 for codes of 2 bits.
using Lane = __m256i;
constexpr int kMostFours = 40;  // 40 * 768 < 32768
// (As a pair of instructions for GCC, which otherwise computes all products of a tile first and then spills
// them; that cost 40 % of the speed.)
Lane add(Lane lane, __m256i u, __m256i act) {
#if defined(__GNUC__) && !defined(__clang__)
    __m256i products;
    __asm__("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(lane), "=&x"(products) : "x"(u), "x"(act));
    return lane;
#else
    return _mm256_add_epi16(lane, _mm256_maddubs_epi16(u, act));
#endif
}
Lane fold(Lane ones, Lane fours) { return _mm256_add_epi16(ones, _mm256_srai_epi16(fours, 2)); }
__m256i widen(Lane lane) { return _mm256_madd_epi16(lane, _mm256_set1_epi16(1)); }

#include "kernels/tiers/avx2_in_place-inl.h"
#include "kernels/tiers/avx2_panel-inl.h"

}  // namespace
TRIT_TARGET_END

#include "kernels/tiers/kernels-inl.h"

extern "C" const trit_tier trit_tier_avx2 = with_kernels(kAbsent);

#else

extern "C" const trit_tier trit_tier_avx2 = kAbsent;

#endif
