// SPDX-License-Identifier: MIT
/// Prefill by tables over tokens (lookup-inl.h) for Advanced SIMD. lookup_avx2-inl.h says what each word
/// means.
#include "kernels/tiers/simd.h"

#ifdef TRIT_ARM64

TRIT_TARGET_BEGIN(TRIT_ARM_TARGET_SIMD)
namespace {

using Sums = int16x8_t;
constexpr int kLanes = 8;

int supported() { return 1; }

Sums zero() { return vdupq_n_s16(0); }
Sums load(const void* p) { return vld1q_s16(static_cast<const int16_t*>(p)); }
void store(void* p, Sums v) { vst1q_s16(static_cast<int16_t*>(p), v); }
Sums add(Sums a, Sums b) { return vaddq_s16(a, b); }
Sums subtract(Sums a, Sums b) { return vsubq_s16(a, b); }
void prefetch(const void* p) {
#if defined(__GNUC__)
    __builtin_prefetch(p);
#else
    (void)p;
#endif
}

void widen(Sums sums, bool first, int32_t* to) {
    const int32x4_t low = vmovl_s16(vget_low_s16(sums));
    const int32x4_t high = vmovl_s16(vget_high_s16(sums));
    vst1q_s32(to, first ? low : vaddq_s32(vld1q_s32(to), low));
    vst1q_s32(to + 4, first ? high : vaddq_s32(vld1q_s32(to + 4), high));
}

/// q: 16 inputs of m tokens, q_row_bytes apart -> x: int16 [16, tokens]; tokens from m on become 0.
void spread(const int8_t* q, size_t q_row_bytes, int m, int tokens, int16_t* x) {
    for (int t = 0; t < tokens; t += 8) {
        int8x16_t bytes[8];
        for (int j = 0; j < 8; ++j) {
            bytes[j] = t + j < m ? vld1q_s8(q + static_cast<size_t>(t + j) * q_row_bytes) : vdupq_n_s8(0);
        }
        // Each round moves one bit of a byte's place from its row's number to its column's.
        for (int round = 0; round < 3; ++round) {
            int8x16_t next[8];
            TRIT_UNROLL
            for (int j = 0; j < 4; ++j) {
                next[2 * j] = vzip1q_s8(bytes[j], bytes[j + 4]);
                next[2 * j + 1] = vzip2q_s8(bytes[j], bytes[j + 4]);
            }
            std::memcpy(bytes, next, sizeof(bytes));
        }
        for (int i = 0; i < 8; ++i) {  // two inputs of 8 tokens each
            vst1q_s16(x + 2 * i * tokens + t, vmovl_s8(vget_low_s8(bytes[i])));
            vst1q_s16(x + (2 * i + 1) * tokens + t, vmovl_s8(vget_high_s8(bytes[i])));
        }
    }
}

/// sums: int32 [rows, tokens] -> c[j * c_stride + r] for j < m. rows: a multiple of 4.
void gather(const int32_t* sums, int rows, int tokens, int m, int32_t* c, size_t c_stride) {
    for (int r = 0; r < rows; r += 4) {
        for (int t = 0; t < m; t += 4) {
            int32x4_t lines[4];
            for (int i = 0; i < 4; ++i) {
                lines[i] = vld1q_s32(sums + (r + i) * tokens + t);
            }
            const int32x4x2_t even = vtrnq_s32(lines[0], lines[1]);
            const int32x4x2_t odd = vtrnq_s32(lines[2], lines[3]);
            const int32x4_t columns[4] = {
                vcombine_s32(vget_low_s32(even.val[0]), vget_low_s32(odd.val[0])),
                vcombine_s32(vget_low_s32(even.val[1]), vget_low_s32(odd.val[1])),
                vcombine_s32(vget_high_s32(even.val[0]), vget_high_s32(odd.val[0])),
                vcombine_s32(vget_high_s32(even.val[1]), vget_high_s32(odd.val[1])),
            };
            for (int j = 0; j < 4 && t + j < m; ++j) {
                vst1q_s32(c + static_cast<size_t>(t + j) * c_stride + r, columns[j]);
            }
        }
    }
}

#include "kernels/lookup/lookup-inl.h"

}  // namespace
TRIT_TARGET_END

#else
#include "kernels/lookup/absent-inl.h"
#endif
