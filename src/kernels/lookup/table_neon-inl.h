// SPDX-License-Identifier: MIT
/// TL1 and TL2 kernels (table-inl.h) for Advanced SIMD. table_avx2-inl.h says what each word means.
#include "kernels/tiers/simd.h"

#ifdef TRIT_ARM64

TRIT_TARGET_BEGIN(TRIT_ARM_TARGET_SIMD)
namespace {

using Bytes = int8x16_t;
using Entries = int8x16_t;
constexpr int kRegisterRows = 16;

struct Words {
    int16x8_t even;  ///< rows 0..7
    int16x8_t odd;   ///< rows 8..15
};

inline int supported() { return 1; }

inline Entries times(int8_t x, const int8_t* weights) { return vmulq_s8(vdupq_n_s8(x), vld1q_s8(weights)); }
inline Entries add_entries(Entries a, Entries b) { return vaddq_s8(a, b); }
inline void store_entries(int8_t* to, Entries v) { vst1q_s8(to, v); }

inline Bytes load(const uint8_t* p) { return vreinterpretq_s8_u8(vld1q_u8(p)); }
inline Bytes load_table(const int8_t* p) { return vld1q_s8(p); }
inline Bytes low_half(Bytes v) { return vandq_s8(v, vdupq_n_s8(15)); }
inline Bytes high_half(Bytes v) { return vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(v), 4)); }
inline Bytes look_up(Bytes table, Bytes index) { return vqtbl1q_s8(table, vreinterpretq_u8_s8(index)); }
inline Bytes add(Bytes a, Bytes b) { return vaddq_s8(a, b); }
inline void prefetch(const void* p) {
#if defined(__GNUC__)
    __builtin_prefetch(p);
#else
    (void)p;
#endif
}

/// Signs of 8 triples in a byte for each row; a sign is -1 or 0.
struct Signs {
    uint8x16_t all;
};

inline Signs begin(Bytes signs) { return {vreinterpretq_u8_s8(signs)}; }
inline Bytes sign_of(const Signs& signs, int triple) {
    return vreinterpretq_s8_u8(vtstq_u8(signs.all, vdupq_n_u8(static_cast<uint8_t>(0x80 >> triple))));
}
inline Signs next(const Signs& signs) { return signs; }
inline Bytes negate(Bytes v, Bytes sign) { return vsubq_s8(veorq_s8(v, sign), sign); }

inline Bytes every(int8_t byte) { return vdupq_n_s8(byte); }
template <int kFrom, int kTo>
inline Bytes move(Bytes v) {
    uint8x16_t moved = vreinterpretq_u8_s8(v);
    if constexpr (kFrom > kTo) {
        moved = vshrq_n_u8(moved, 2 * (kFrom - kTo));
    } else if constexpr (kFrom < kTo) {
        moved = vshlq_n_u8(moved, 2 * (kTo - kFrom));
    }
    return vreinterpretq_s8_u8(vandq_u8(moved, vdupq_n_u8(3 << 2 * kTo)));
}
inline Bytes merge(Bytes a, Bytes b, Bytes c, Bytes d) { return vorrq_s8(vorrq_s8(a, b), vorrq_s8(c, d)); }
inline void store_rows(uint8_t* to, const Bytes (&bytes)[4]) {
    // Not in place: clang's vst4q_s8 is a macro, to which commas between braces part arguments.
    const int8x16x4_t four = {{bytes[0], bytes[1], bytes[2], bytes[3]}};
    vst4q_s8(reinterpret_cast<int8_t*>(to), four);
}

inline Words add_nibbles(Words sums, Bytes low, Bytes high) {
    const int8x8_t worth = vdup_n_s8(16);
    return {vmlal_s8(vaddw_s8(sums.even, vget_low_s8(low)), vget_low_s8(high), worth),
            vmlal_s8(vaddw_s8(sums.odd, vget_high_s8(low)), vget_high_s8(high), worth)};
}

inline int16x8_t negate_words(int8x16_t v, int8x16_t sign) {
    const int16x8_t mask = vreinterpretq_s16_s8(sign);
    return vsubq_s16(veorq_s16(vreinterpretq_s16_s8(v), mask), mask);
}

inline Words add_bytes_of_words(Words sums, Bytes low, Bytes high) {
    return {vaddq_s16(sums.even, vreinterpretq_s16_s8(vzip1q_s8(low, high))),
            vaddq_s16(sums.odd, vreinterpretq_s16_s8(vzip2q_s8(low, high)))};
}

inline Words add_bytes_of_words(Words sums, Bytes low, Bytes high, Bytes sign) {
    return {vaddq_s16(sums.even, negate_words(vzip1q_s8(low, high), vzip1q_s8(sign, sign))),
            vaddq_s16(sums.odd, negate_words(vzip2q_s8(low, high), vzip2q_s8(sign, sign)))};
}

inline void widen(Words sums, bool first, int32_t* to) {
    const int32x4_t fours[4] = {vmovl_s16(vget_low_s16(sums.even)), vmovl_s16(vget_high_s16(sums.even)),
                                vmovl_s16(vget_low_s16(sums.odd)), vmovl_s16(vget_high_s16(sums.odd))};
    for (int i = 0; i < 4; ++i) {
        vst1q_s32(to + 4 * i, first ? fours[i] : vaddq_s32(vld1q_s32(to + 4 * i), fours[i]));
    }
}

#include "kernels/lookup/table-inl.h"

}  // namespace
TRIT_TARGET_END

#else
#include "kernels/lookup/absent-inl.h"
#endif
