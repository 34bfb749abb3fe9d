// SPDX-License-Identifier: MIT
/// Prefill with smmla. Included after neon_common-inl.h, inside the target region and the anonymous namespace
/// of a tier, which defines multiply_add.
///
/// Unpacked codes: 8 inputs x 64 rows = 32 registers of 2 rows x 8 inputs. Tokens likewise: registers of 2
/// tokens x 8 inputs, ordered once for the four tiles of a panel.

// 8 registers (16 rows) x 3 pairs of tokens: 24 registers of sums, 3 of activations.
constexpr int kPairRegisters = 8;
constexpr int kTileTokens = 6;
constexpr int kTileRegisters = 4;  // as mac_loop counts: 24 sums
constexpr int kChunk = 256;        // inputs: 16 KB of codes, which stay in the first-level cache
constexpr size_t kUnpackAhead = 2048;

/// A word is 4 inputs of one row: zipping two fields joins 8 inputs of each of two rows.
void store_pairs(int8_t* out, uint8x16_t first, uint8x16_t second) {
    const uint32x4_t a = vreinterpretq_u32_u8(first);
    const uint32x4_t b = vreinterpretq_u32_u8(second);
    vst1q_s8(out, vreinterpretq_s8_u32(vzip1q_u32(a, b)));
    vst1q_s8(out + 16, vreinterpretq_s8_u32(vzip2q_u32(a, b)));
}

void unpack_step(const uint8_t* panel, int8_t* out) {
    const uint8x16_t field = vdupq_n_u8(3);
    for (int r = 0; r < 256; r += 16) {
        prefetch(panel + kUnpackAhead + r);
        const uint8x16_t bytes = load(panel + r);
        store_pairs(out + 2 * r, vandq_u8(bytes, field), vandq_u8(vshrq_n_u8(bytes, 2), field));
        store_pairs(out + 512 + 2 * r, vandq_u8(vshrq_n_u8(bytes, 4), field), vshrq_n_u8(bytes, 6));
    }
}

/// For every 8 inputs kPairs registers of two tokens; an odd last token is its own partner.
template <int M>
void pair_tokens(int fours, const int8_t* q, size_t q_row_bytes, int8_t* out) {
    constexpr int kPairs = (M + 1) / 2;
    for (int p = 0; p < kPairs; ++p) {
        const int8_t* even = q + static_cast<size_t>(2 * p) * q_row_bytes;
        const int8_t* odd = 2 * p + 1 < M ? even + q_row_bytes : even;
        int8_t* to = out + 16 * p;
        for (int l = 0; l < fours; l += 4, even += 16, odd += 16, to += 2 * 16 * kPairs) {
            const int64x2_t a = vreinterpretq_s64_s8(load(even));
            const int64x2_t b = vreinterpretq_s64_s8(load(odd));
            vst1q_s8(to, vreinterpretq_s8_s64(vzip1q_s64(a, b)));
            vst1q_s8(to + 16 * kPairs, vreinterpretq_s8_s64(vzip2q_s64(a, b)));
        }
    }
}

template <int M>
void tile(int fours, const int8_t* unpacked, const int8_t* tokens, bool first, int32_t* c) {
    constexpr int kPairs = (M + 1) / 2;
    Lane acc[kPairs][kPairRegisters] = {};
    for (int l = 0; l < fours; l += 2, unpacked += 512, tokens += 16 * kPairs) {
        int8x16_t act[kPairs];
        TRIT_UNROLL
        for (int p = 0; p < kPairs; ++p) {
            act[p] = load(tokens + 16 * p);
        }
        TRIT_UNROLL
        for (int r = 0; r < kPairRegisters; ++r) {
            const int8x16_t u = load(unpacked + 16 * r);
            TRIT_UNROLL
            for (int p = 0; p < kPairs; ++p) {
                acc[p][r] = multiply_add(acc[p][r], u, act[p]);
            }
        }
    }
    TRIT_UNROLL
    for (int p = 0; p < kPairs; ++p) {
        TRIT_UNROLL
        for (int r = 0; r < kPairRegisters; r += 2) {
            int32_t* to = c + 2 * p * TRIT_PANEL_ROWS + 2 * r;
            add_to(to, first, vuzp1q_s32(acc[p][r], acc[p][r + 1]));
            if (2 * p + 1 < M) {
                add_to(to + TRIT_PANEL_ROWS, first, vuzp2q_s32(acc[p][r], acc[p][r + 1]));
            }
        }
    }
}

template <int M>
void tiles(int fours, const int8_t* unpacked, const int8_t* q, size_t q_row_bytes, bool first, int32_t* c) {
    alignas(64) int8_t tokens[(M + 1) / 2 * 2 * kChunk];
    pair_tokens<M>(fours, q, q_row_bytes, tokens);
    for (int row = 0; row < TRIT_PANEL_ROWS; row += 2 * kPairRegisters) {
        tile<M>(fours, unpacked + 8 * row, tokens, first, c + row);
    }
}
