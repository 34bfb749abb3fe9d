// SPDX-License-Identifier: MIT
/// sdot, as neon_common-inl.h, neon_lanes.h and neon_panel.h want it. Included before them, inside the target
/// region and the anonymous namespace of a tier.

/// sdot: four neighbouring products in 32 bits; 2^20 inputs of an i2_s row fit without widening.
using Lane = int32x4_t;
constexpr int kMostAdds = 1 << 20;

int32x4_t widen(Lane lane) { return lane; }
int8x16_t as_bytes(Lane lane) { return vreinterpretq_s8_s32(lane); }

// In assembly because GCC otherwise moves and spills accumulators, and because clang's arm_neon.h before
// version 16 has these intrinsics only if the whole file is compiled for such a CPU.
Lane add(Lane lane, int8x16_t u, int8x16_t act) {
#if defined(__GNUC__)
    __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(lane) : "w"(u), "w"(act));
    return lane;
#else
    return vdotq_s32(lane, u, act);
#endif
}

/// The F-th four of the 16 activations against the codes of 4 rows: no shuffle.
template <int F>
Lane add_four(Lane lane, int8x16_t u, int8x16_t act) {
#if defined(__GNUC__)
    __asm__("sdot %0.4s, %1.16b, %2.4b[%c3]" : "+w"(lane) : "w"(u), "w"(act), "i"(F));
    return lane;
#else
    return vdotq_laneq_s32(lane, u, act, F);
#endif
}

/// For one token: codes of fields 1 and 2 stay at 4 and 16 times their value, in lanes of their own. Field 3
/// would be at 192, which is no int8, and is shifted.
struct TokenSums {
    Lane ones;
    Lane fours;
    Lane sixteens;
};
constexpr int kTokenSteps = 32;  // 32 * 4 * 48 * 128 < 2^31

void add_step(TokenSums& sums, uint8x16_t bytes, int8x16_t act) {
    const auto field = [bytes](uint8_t mask) {
        return vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(mask)));
    };
    const int8x16_t u0 = field(0x03);
    const int8x16_t u1 = field(0x0C);
    const int8x16_t u2 = field(0x30);
    const int8x16_t u3 = vreinterpretq_s8_u8(vshrq_n_u8(bytes, 6));
#if defined(__GNUC__)
    // One statement: in-order cores would wait for each field between two products.
    __asm__(
        "sdot %0.4s, %3.16b, %7.4b[0]\n\t"
        "sdot %1.4s, %4.16b, %7.4b[1]\n\t"
        "sdot %2.4s, %5.16b, %7.4b[2]\n\t"
        "sdot %0.4s, %6.16b, %7.4b[3]"
        : "+&w"(sums.ones), "+&w"(sums.fours), "+&w"(sums.sixteens)
        : "w"(u0), "w"(u1), "w"(u2), "w"(u3), "w"(act));
#else
    sums.ones = add_four<3>(add_four<0>(sums.ones, u0, act), u3, act);
    sums.fours = add_four<1>(sums.fours, u1, act);
    sums.sixteens = add_four<2>(sums.sixteens, u2, act);
#endif
}
int32x4_t total(const TokenSums& sums) {
    return vsraq_n_s32(vsraq_n_s32(sums.ones, sums.fours, 2), sums.sixteens, 4);
}
