// SPDX-License-Identifier: MIT
/// Tier scalar: plain loops, always compiled, on every CPU. This file is the definition of "correct".
#include <cmath>
#include <cstdint>
#include <limits>

#include "tier.h"

namespace {

int always() { return 1; }

void quantize(int64_t k, const float* x, int8_t* q, float* scale, int32_t* sum) {
    float max_abs = 0.0f;
    bool finite = true;
    for (int64_t i = 0; i < k; ++i) {
        finite = finite && std::isfinite(x[i]);
        max_abs = std::fmax(max_abs, std::fabs(x[i]));
    }
    const float s = 127.0f / std::fmax(max_abs, 1e-5f);
    int32_t total = 0;
    for (int64_t i = 0; i < k; ++i) {
        // |x * s| <= 127 * (1 + 2^-22), so the clamp of the formula can never act.
        const int32_t value = finite ? static_cast<int32_t>(std::nearbyint(x[i] * s)) : 0;
        q[i] = static_cast<int8_t>(value);
        total += value;
    }
    *scale = finite ? s : std::numeric_limits<float>::quiet_NaN();
    *sum = total;
}

void i2_s(int64_t k, const uint8_t* w, size_t w_row_bytes, int n, const int8_t* q, size_t q_row_bytes, int m,
          int32_t* c, size_t c_stride) {
    for (int j = 0; j < m; ++j) {
        const int8_t* token = q + static_cast<size_t>(j) * q_row_bytes;
        for (int i = 0; i < n; ++i) {
            const uint8_t* row = w + static_cast<size_t>(i) * w_row_bytes;
            int32_t sum = 0;
            for (int64_t block = 0; block < k / TRIT_I2_S_BLOCK; ++block) {
                const uint8_t* bytes = row + block * TRIT_I2_S_BLOCK_BYTES;
                const int8_t* x = token + block * TRIT_I2_S_BLOCK;
                for (int p = 0; p < TRIT_I2_S_BLOCK_BYTES; ++p) {
                    sum += ((bytes[p] >> 6) & 3) * x[p] + ((bytes[p] >> 4) & 3) * x[32 + p] +
                           ((bytes[p] >> 2) & 3) * x[64 + p] + (bytes[p] & 3) * x[96 + p];
                }
            }
            c[static_cast<size_t>(j) * c_stride + static_cast<size_t>(i)] = sum;
        }
    }
}

}  // namespace

extern "C" const trit_tier trit_tier_scalar = {"scalar", "nothing", 0, always, quantize, i2_s};
