// SPDX-License-Identifier: MIT
/// Tier neon: Advanced SIMD of every 64-bit ARM, without a dot-product instruction.
#include "kernels/tiers/simd.h"

static constexpr trit_tier kAbsent = trit_absent_tier("neon", "Advanced SIMD", 20);

#ifdef TRIT_ARM64

namespace {

int supported() { return 1; }

/// smlal: products in 16 bits, at most 3 * 128 = 384 for codes of 2 bits, one in each of 16 sums.
struct Lane {
    int16x8_t low;
    int16x8_t high;
};
constexpr int kMostAdds = 84;  // 84 * 384 < 32768, and whole steps of 4

// In assembly for GCC, which otherwise copies accumulators to and fro.
Lane add(Lane lane, int8x16_t u, int8x16_t act) {
#if defined(__GNUC__) && !defined(__clang__)
    __asm__("smlal %0.8h, %1.8b, %2.8b" : "+w"(lane.low) : "w"(u), "w"(act));
    __asm__("smlal2 %0.8h, %1.16b, %2.16b" : "+w"(lane.high) : "w"(u), "w"(act));
    return lane;
#else
    return {vmlal_s8(lane.low, vget_low_s8(u), vget_low_s8(act)), vmlal_high_s8(lane.high, u, act)};
#endif
}
int32x4_t widen(Lane lane) { return vpaddq_s32(vpaddlq_s16(lane.low), vpaddlq_s16(lane.high)); }

template <int F>
Lane add_four(Lane lane, int8x16_t u, int8x16_t act) {
    return add(lane, u, vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(act), F)));
}

// For one token.
using TokenSums = Lane;
constexpr int kTokenSteps = kMostAdds / 4;
void add_step(TokenSums& sums, uint8x16_t bytes, int8x16_t act) {
    const auto field = [](uint8x16_t shifted) {
        return vreinterpretq_s8_u8(vandq_u8(shifted, vdupq_n_u8(3)));
    };
    sums = add_four<0>(sums, field(bytes), act);
    sums = add_four<1>(sums, field(vshrq_n_u8(bytes, 2)), act);
    sums = add_four<2>(sums, field(vshrq_n_u8(bytes, 4)), act);
    sums = add_four<3>(sums, vreinterpretq_s8_u8(vshrq_n_u8(bytes, 6)), act);
}
int32x4_t total(const TokenSums& sums) { return widen(sums); }

// 2 registers x 4 tokens: 16 registers of sums, 8 of activations and their repeated words.
constexpr int kTileRegisters = 2;
constexpr int kTileTokens = 4;

// For mac_loop.
constexpr int kMultiplyAddMacs = 16;
Lane multiply_add(Lane lane, int8x16_t a, int8x16_t b) { return add(lane, a, b); }
int8x16_t as_bytes(Lane lane) { return vreinterpretq_s8_s16(veorq_s16(lane.low, lane.high)); }

#include "kernels/tiers/neon_common-inl.h"
#include "kernels/tiers/neon_in_place-inl.h"
#include "kernels/tiers/neon_lanes-inl.h"
#include "kernels/tiers/neon_panel-inl.h"

}  // namespace

#include "kernels/tiers/kernels-inl.h"

extern "C" const trit_tier trit_tier_neon = with_kernels(kAbsent);

#else

extern "C" const trit_tier trit_tier_neon = kAbsent;

#endif
