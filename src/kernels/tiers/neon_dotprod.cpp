// SPDX-License-Identifier: MIT
/// Tier neon_dotprod: sdot (ARMv8.2's dot product; Cortex-A75 and later). Needs FEAT_DotProd.
#include "kernels/tiers/simd.h"

static constexpr trit_tier kAbsent = trit_absent_tier("neon_dotprod", "FEAT_DotProd", 30);

#ifdef TRIT_ARM64

TRIT_TARGET_BEGIN(TRIT_ARM_TARGET_DOTPROD)
namespace {

int supported() { return trit_arm_has(TRIT_ARM_DOTPROD); }

#include "kernels/tiers/neon_dot-inl.h"

// 4 registers x 5 tokens: 20 registers of sums, 5 of activations. (With 6 tokens GCC spills.)
constexpr int kTileRegisters = 4;
constexpr int kTileTokens = 5;

// For mac_loop.
constexpr int kMultiplyAddMacs = 16;
Lane multiply_add(Lane lane, int8x16_t a, int8x16_t b) { return add(lane, a, b); }

#include "kernels/tiers/neon_common-inl.h"
#include "kernels/tiers/neon_in_place-inl.h"
#include "kernels/tiers/neon_lanes-inl.h"
#include "kernels/tiers/neon_panel-inl.h"
#include "kernels/tiers/neon_q6_k-inl.h"

}  // namespace
TRIT_TARGET_END

#include "kernels/tiers/kernels-inl.h"

extern "C" const trit_tier trit_tier_neon_dotprod = with_q6_k(with_kernels(kAbsent));

#else

extern "C" const trit_tier trit_tier_neon_dotprod = kAbsent;

#endif
