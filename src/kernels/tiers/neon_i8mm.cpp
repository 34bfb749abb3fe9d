// SPDX-License-Identifier: MIT
/// Tier neon_i8mm: smmla, which multiplies 2 rows by 2 tokens (ARMv8.6; Cortex-X2, Neoverse V1, Apple M2 and
/// later). Needs FEAT_DotProd and FEAT_I8MM.
#include "kernels/tiers/simd.h"

static constexpr trit_tier kAbsent = trit_absent_tier("neon_i8mm", "FEAT_DotProd, FEAT_I8MM", 40);

#ifdef TRIT_ARM64

TRIT_TARGET_BEGIN(TRIT_ARM_TARGET_I8MM)
namespace {

int supported() { return trit_arm_has(TRIT_ARM_DOTPROD | TRIT_ARM_I8MM); }

#include "kernels/tiers/neon_dot-inl.h"

/// Sums of (row 0, token 0), (row 0, token 1), (row 1, token 0), (row 1, token 1) over 8 inputs. (In assembly
/// for the reasons in neon_dot-inl.h.)
Lane multiply_add(Lane lane, int8x16_t rows, int8x16_t tokens) {
#if defined(__GNUC__)
    __asm__("smmla %0.4s, %1.16b, %2.16b" : "+w"(lane) : "w"(rows), "w"(tokens));
    return lane;
#else
    return vmmlaq_s32(lane, rows, tokens);
#endif
}
constexpr int kMultiplyAddMacs = 32;

#include "kernels/tiers/neon_common-inl.h"
#include "kernels/tiers/neon_in_place-inl.h"
#include "kernels/tiers/neon_mmla-inl.h"
#include "kernels/tiers/neon_panel-inl.h"
#include "kernels/tiers/neon_q6_k-inl.h"

}  // namespace
TRIT_TARGET_END

#include "kernels/tiers/kernels-inl.h"

extern "C" const trit_tier trit_tier_neon_i8mm = with_q6_k(with_kernels(kAbsent));

#else

extern "C" const trit_tier trit_tier_neon_i8mm = kAbsent;

#endif
