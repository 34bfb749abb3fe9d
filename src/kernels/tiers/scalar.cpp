// SPDX-License-Identifier: MIT
/// Tier scalar: plain loops, always compiled, on every CPU. This file is the definition of "correct".
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/tier.h"

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

/// The code of one weight, from the bytes that src/kernels/panel.cpp describes.
int panel_code(trit_packing packing, int64_t k, const uint8_t* panel, int row, int64_t input) {
    const int64_t lane = row % 16 * 4 + input % 4;
    if (packing == TRIT_PACKING_2_BITS) {
        const uint8_t byte = panel[input / 16 * 256 + row / 16 * 64 + lane];
        return byte >> (2 * (input % 16 / 4)) & 3;
    }
    if (packing == TRIT_PACKING_1_BIT) {
        const uint8_t byte = panel[input / 32 * 256 + row / 16 * 64 + lane];
        return 2 * (byte >> (input % 32 / 4) & 1);
    }
    const int64_t half = row / 32 * ((k + 19) / 20 * 128);
    int byte = panel[half + input / 20 * 128 + row % 32 / 16 * 64 + lane];
    for (int64_t field = input % 20 / 4; field > 0; --field) {
        byte /= 3;
    }
    return byte % 3;
}

template <trit_packing kPacking>
void panel(int64_t k, const uint8_t* w, const int8_t* q, size_t q_row_bytes, int m, int32_t* c) {
    std::memset(c, 0, static_cast<size_t>(m) * TRIT_PANEL_ROWS * sizeof(*c));
    for (int64_t l = 0; l < k; ++l) {
        for (int i = 0; i < TRIT_PANEL_ROWS; ++i) {
            const int u = panel_code(kPacking, k, w, i, l);
            for (int j = 0; j < m; ++j) {
                c[j * TRIT_PANEL_ROWS + i] +=
                    u * q[static_cast<size_t>(j) * q_row_bytes + static_cast<size_t>(l)];
            }
        }
    }
}

void finish(int n, const int32_t* c, int32_t act_sum, float act_scale, const float* w_scale, int w_step,
            float* out) {
    for (int i = 0; i < n; ++i) {
        out[i] = static_cast<float>(c[i] - act_sum) / act_scale * w_scale[i * w_step];
    }
}

/// IEEE half to single precision, exact.
float half_to_float(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
    const uint32_t exponent = half >> 10 & 0x1Fu;
    const uint32_t fraction = half & 0x3FFu;
    float value = 0.0f;
    if (exponent == 0) {
        value = static_cast<float>(fraction) * 0x1p-24f;
        return sign != 0 ? -value : value;
    }
    const uint32_t bits = sign | (exponent == 31 ? 0xFFu : exponent + 112) << 23 | fraction << 13;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
}

void accumulate(const int32_t* c, int32_t act_sum, float act_step, const uint16_t* w_scale, float* acc) {
    for (int i = 0; i < TRIT_PANEL_ROWS; ++i) {
        acc[i] += static_cast<float>(c[i] - act_sum) * act_step * half_to_float(w_scale[i]);
    }
}

int64_t mac_loop(int64_t rounds) {
    int32_t acc[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    volatile int8_t seed = 3;
    const int8_t a = seed;
    for (int64_t round = 0; round < rounds; ++round) {
        for (int i = 0; i < 8; ++i) {
            acc[i] += a * static_cast<int8_t>(round + i);
        }
    }
    volatile int32_t sink = acc[0] + acc[1] + acc[2] + acc[3] + acc[4] + acc[5] + acc[6] + acc[7];
    (void)sink;
    return 8 * rounds;
}

uint64_t read_loop(const uint8_t* data, size_t bytes, size_t) {
    uint64_t sum = 0;
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word = 0;
        std::memcpy(&word, data + i, sizeof(word));
        sum ^= word;
    }
    return sum;
}

/// One q6_K block and one q8_K block: the integer sums of 8 lanes. A q6_K block is 128 bytes of low nibbles,
/// 64 of upper bits, 16 scales; for each half h of 128 inputs, field f is 32 inputs with 2 scales.
void q6_k_lanes(const uint8_t* w, const uint8_t* token, int32_t lanes[8]) {
    const auto* scales = reinterpret_cast<const int8_t*>(w + 192);
    const auto* q = reinterpret_cast<const int8_t*>(token + 4);
    std::memset(lanes, 0, 8 * sizeof(*lanes));
    for (int h = 0; h < 2; ++h) {
        for (int f = 0; f < 4; ++f) {
            for (int p = 0; p < 32; ++p) {
                const int low = w[64 * h + f % 2 * 32 + p] >> (f / 2 * 4) & 15;
                const int high = w[128 + 32 * h + p] >> (2 * f) & 3;
                const int i = 128 * h + 32 * f + p;
                lanes[p / 4] += scales[i / 16] * q[i] * (low + 16 * high);
                lanes[i / 32] -= 32 * scales[i / 16] * q[i];
            }
        }
    }
}

void q6_k(int64_t k, const uint8_t* w, size_t w_row_bytes, int64_t n, const uint8_t* tokens,
          size_t token_bytes, int m, float* const* out) {
    for (int64_t i = 0; i < n; ++i, w += w_row_bytes) {
        for (int j = 0; j < m; ++j) {
            float acc[8] = {};
            for (int64_t b = 0; b < k / TRIT_K_BLOCK; ++b) {
                const uint8_t* block = w + b * TRIT_Q6_K_BYTES;
                const uint8_t* token = tokens + static_cast<size_t>(j) * token_bytes + b * TRIT_Q8_K_BYTES;
                float token_scale = 0.0f;
                uint16_t half = 0;
                std::memcpy(&token_scale, token, sizeof(token_scale));
                std::memcpy(&half, block + 208, sizeof(half));
                const float d = token_scale * half_to_float(half);
                int32_t lanes[8];
                q6_k_lanes(block, token, lanes);
#ifdef TRIT_ARM64
                for (int l = 1; l < 8; ++l) {
                    lanes[0] += lanes[l];
                    lanes[l] = 0;
                }
#endif
                for (int l = 0; l < 8; ++l) {
                    acc[l] = std::fma(d, static_cast<float>(lanes[l]), acc[l]);
                }
            }
            // Summed as described in trit.h.
            const float even = (acc[0] + acc[4]) + (acc[2] + acc[6]);
            out[j][i] = even + ((acc[1] + acc[5]) + (acc[3] + acc[7]));
        }
    }
}

constexpr trit_tier with_kernels(trit_tier tier) {
    tier.supported = always;
    tier.quantize = quantize;
    tier.i2_s = i2_s;
    tier.panel[TRIT_PACKING_2_BITS] = panel<TRIT_PACKING_2_BITS>;
    tier.panel[TRIT_PACKING_5_TRITS] = panel<TRIT_PACKING_5_TRITS>;
    tier.panel[TRIT_PACKING_1_BIT] = panel<TRIT_PACKING_1_BIT>;
    tier.finish = finish;
    tier.accumulate = accumulate;
    tier.mac_loop = mac_loop;
    tier.read_loop = read_loop;
    tier.q6_k = q6_k;
    return tier;
}

}  // namespace

extern "C" const trit_tier trit_tier_scalar = with_kernels(trit_absent_tier("scalar", "nothing", 0));
