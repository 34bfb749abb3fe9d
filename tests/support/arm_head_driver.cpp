// SPDX-License-Identifier: MIT
// The tiers' q6_K kernels against llama.cpp's dot product as it is compiled beside this: prints how many
// floats were compared, or fails on the first that differs in a bit.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/tier.h"

extern "C" {
void ggml_vec_dot_q6_K_q8_K(int n, float* s, size_t bs, const void* vx, size_t bx, const void* vy, size_t by,
                            int nrc);
extern const trit_tier trit_tier_scalar, trit_tier_neon_dotprod, trit_tier_neon_i8mm;
}

int main(int, char** argv) {
    std::mt19937 random(static_cast<unsigned>(std::atoi(argv[1])));
    std::normal_distribution<float> normal;
    long compared = 0;
    for (const int blocks : {1, 2, 10}) {
        for (int m = 1; m <= TRIT_Q6_K_TOKENS; ++m) {
            constexpr int kRows = 5;
            const size_t row_bytes = static_cast<size_t>(blocks) * TRIT_Q6_K_BYTES;
            const size_t token_bytes = static_cast<size_t>(blocks) * TRIT_Q8_K_BYTES;
            std::vector<uint8_t> w(kRows * row_bytes);
            std::vector<uint8_t> tokens(static_cast<size_t>(m) * token_bytes);
            for (uint8_t& byte : w) {
                byte = static_cast<uint8_t>(random());
            }
            for (size_t at = 208; at < w.size(); at += TRIT_Q6_K_BYTES) {
                w[at + 1] = static_cast<uint8_t>((w[at + 1] & 0x83u) | 0x20u);  // halves from 2^-7 to 2^-6
            }
            for (uint8_t* block = tokens.data(); block < tokens.data() + tokens.size();
                 block += TRIT_Q8_K_BYTES) {
                const float scale = normal(random);
                std::memcpy(block, &scale, sizeof(scale));
                for (int group = 0; group < 16; ++group) {
                    int16_t sum = 0;
                    for (int i = 0; i < 16; ++i) {
                        const auto q = static_cast<int8_t>(static_cast<int>(random() % 255) - 127);
                        block[4 + 16 * group + i] = static_cast<uint8_t>(q);
                        sum = static_cast<int16_t>(sum + q);
                    }
                    std::memcpy(block + 260 + 2 * group, &sum, sizeof(sum));
                }
            }
            for (const trit_tier* tier : {&trit_tier_scalar, &trit_tier_neon_dotprod, &trit_tier_neon_i8mm}) {
                std::vector<float> results(static_cast<size_t>(kRows * m));
                float* out[TRIT_Q6_K_TOKENS];
                for (int j = 0; j < m; ++j) {
                    out[j] = results.data() + j * kRows;
                }
                tier->q6_k(blocks * TRIT_K_BLOCK, w.data(), row_bytes, kRows, tokens.data(), token_bytes, m,
                           out);
                for (int j = 0; j < m; ++j) {
                    for (int i = 0; i < kRows; ++i, ++compared) {
                        float expected = 0.0f;
                        ggml_vec_dot_q6_K_q8_K(blocks * TRIT_K_BLOCK, &expected, 0,
                                               w.data() + static_cast<size_t>(i) * row_bytes, 0,
                                               tokens.data() + static_cast<size_t>(j) * token_bytes, 0, 1);
                        if (std::memcmp(&expected, out[j] + i, sizeof(expected)) != 0) {
                            std::printf("%s: %d blocks, %d tokens: %a instead of %a\n", tier->name, blocks, m,
                                        static_cast<double>(out[j][i]), static_cast<double>(expected));
                            return 1;
                        }
                    }
                }
            }
        }
    }
    std::printf("%ld\n", compared);
}
