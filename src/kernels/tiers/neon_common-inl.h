// SPDX-License-Identifier: MIT
/// What all ARM tiers have in common: activations and results. Included inside the target region
/// and the anonymous namespace of a tier, which defines before:
///
///     Lane                     what products are added up in; {} is zero
///     Lane add(Lane, u, act)   16 products of codes and activations, element by element
///     int32x4_t widen(Lane)    sums of four neighbouring products
///     kMostAdds                how often `add` may be called with codes up to 3 before `widen`

#include "kernels/tiers/scale-inl.h"

void prefetch([[maybe_unused]] const void* p) {
#if defined(__GNUC__)
    __builtin_prefetch(p);
#endif
}

uint8x16_t load(const uint8_t* p) { return vld1q_u8(p); }
int8x16_t load(const int8_t* p) { return vld1q_s8(p); }
/// Codes are at most 3, or scaled by at most 16: the same as unsigned and as signed bytes.
int8x16_t codes(uint8x16_t u) { return vreinterpretq_s8_u8(u); }

/// Bits 2 F + 1 and 2 F of every byte.
template <int F>
int8x16_t field(uint8x16_t bytes) {
    if constexpr (F > 0) {
        bytes = vshrq_n_u8(bytes, 2 * F);
    }
    if constexpr (F < 3) {
        bytes = vandq_u8(bytes, vdupq_n_u8(3));
    }
    return codes(bytes);
}

void add_to(int32_t* c, bool first, int32x4_t sums) {
    vst1q_s32(c, first ? sums : vaddq_s32(vld1q_s32(c), sums));
}

/// Largest bit pattern of |x[i]|.
uint32_t max_abs_bits(int64_t k, const float* x) {
    uint32x4_t best[4] = {};
    for (int64_t i = 0; i < k; i += 16) {
        TRIT_UNROLL
        for (int part = 0; part < 4; ++part) {
            best[part] = vmaxq_u32(best[part], vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(x + i + 4 * part))));
        }
    }
    return vmaxvq_u32(vmaxq_u32(vmaxq_u32(best[0], best[1]), vmaxq_u32(best[2], best[3])));
}

void quantize(int64_t k, const float* x, int8_t* q, float* scale, int32_t* sum) {
    if (!find_scale(max_abs_bits(k, x), k, q, scale, sum)) {
        return;
    }
    const float s = *scale;
    int32x4_t total = vdupq_n_s32(0);
    for (int64_t i = 0; i < k; i += 16) {
        int16x4_t v[4];
        TRIT_UNROLL
        for (int part = 0; part < 4; ++part) {
            const int32x4_t rounded = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i + 4 * part), s));
            total = vaddq_s32(total, rounded);
            v[part] = vqmovn_s32(rounded);
        }
        vst1q_s8(q + i,
                 vcombine_s8(vqmovn_s16(vcombine_s16(v[0], v[1])), vqmovn_s16(vcombine_s16(v[2], v[3]))));
    }
    *sum = vaddvq_s32(total);
}

void finish(int n, const int32_t* c, int32_t act_sum, float act_scale, const float* w_scale, int w_step,
            float* out) {
    const int32x4_t sum = vdupq_n_s32(act_sum);
    const float32x4_t scale = vdupq_n_f32(act_scale);
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        const float32x4_t value = vcvtq_f32_s32(vsubq_s32(vld1q_s32(c + i), sum));
        const float32x4_t w = w_step == 0 ? vdupq_n_f32(*w_scale) : vld1q_f32(w_scale + i);
        vst1q_f32(out + i, vmulq_f32(vdivq_f32(value, scale), w));
    }
    for (; i < n; ++i) {
        out[i] = static_cast<float>(c[i] - act_sum) / act_scale * w_scale[i * w_step];
    }
}

/// (The build forbids contraction: compilers would fuse even these intrinsics into vfmaq_f32.)
void accumulate(const int32_t* c, int32_t act_sum, float act_step, const uint16_t* w_scale, float* acc) {
    const int32x4_t sum = vdupq_n_s32(act_sum);
    for (int i = 0; i < TRIT_PANEL_ROWS; i += 4) {
        const float32x4_t value = vmulq_n_f32(vcvtq_f32_s32(vsubq_s32(vld1q_s32(c + i), sum)), act_step);
        const float32x4_t w = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(w_scale + i)));
        vst1q_f32(acc + i, vaddq_f32(vld1q_f32(acc + i), vmulq_f32(value, w)));
    }
}

uint64_t read_loop(const uint8_t* data, size_t bytes, size_t ahead) {
    uint8x16_t acc[4] = {};
    for (size_t i = 0; i < bytes; i += 64) {
        if (ahead != 0) {
            prefetch(data + i + ahead);
        }
        TRIT_UNROLL
        for (int part = 0; part < 4; ++part) {
            acc[part] = veorq_u8(acc[part], load(data + i + 16 * static_cast<size_t>(part)));
        }
    }
    const uint64x2_t all = vreinterpretq_u64_u8(veorq_u8(veorq_u8(acc[0], acc[1]), veorq_u8(acc[2], acc[3])));
    return vgetq_lane_u64(all, 0) ^ vgetq_lane_u64(all, 1);
}
