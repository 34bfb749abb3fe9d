// SPDX-License-Identifier: MIT
/// Several tokens with smmla. Included after neon_common-inl.h, inside the target region and the anonymous
/// namespace of a tier, which defines multiply_add.
///
/// Unpacked codes: 8 inputs x 64 rows = 32 registers of 2 rows x 8 inputs. Tokens likewise: registers of 2
/// tokens x 8 inputs, ordered once for the four tiles of a panel.

// 8 registers (16 rows) x 3 pairs of tokens: 24 registers of sums, 3 of activations.
constexpr int kPairRegisters = 8;
constexpr int kTileTokens = 6;
constexpr int kTileRegisters = 4;  // as mac_loop counts: 24 sums
constexpr int kChunk = 256;        // inputs: 16 KB of codes, which stay in the first-level cache
constexpr size_t kUnpackAhead = 2048;

/// Two rows x 8 inputs, twice: a word is 4 inputs of one row, and zipping bytes with themselves two bits
/// lower brings fields 0 and 1 of a row side by side, and above them fields 2 and 3.
struct Pairs {
    uint8x16_t rows01;
    uint8x16_t rows23;
    explicit Pairs(uint8x16_t bytes) {
        const uint32x4_t even = vreinterpretq_u32_u8(bytes);
        const uint32x4_t odd = vreinterpretq_u32_u8(vshrq_n_u8(bytes, 2));
        rows01 = vreinterpretq_u8_u32(vzip1q_u32(even, odd));
        rows23 = vreinterpretq_u8_u32(vzip2q_u32(even, odd));
    }
};

void unpack_step(const uint8_t* panel, int8_t* out) {
    for (int r = 0; r < 256; r += 16) {
        prefetch(panel + kUnpackAhead + r);
        const Pairs pairs(load(panel + r));
        vst1q_s8(out + 2 * r, field<0>(pairs.rows01));
        vst1q_s8(out + 2 * r + 16, field<0>(pairs.rows23));
        vst1q_s8(out + 512 + 2 * r, field<2>(pairs.rows01));
        vst1q_s8(out + 512 + 2 * r + 16, field<2>(pairs.rows23));
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

/// 8 inputs.
template <int P>
void add_eight(Lane (&acc)[P][kPairRegisters], const int8_t* unpacked, const int8_t* tokens) {
    int8x16_t act[P];
    TRIT_UNROLL
    for (int p = 0; p < P; ++p) {
        act[p] = load(tokens + 16 * p);
    }
    TRIT_UNROLL
    for (int r = 0; r < kPairRegisters; ++r) {
        const int8x16_t u = load(unpacked + 16 * r);
        TRIT_UNROLL
        for (int p = 0; p < P; ++p) {
            acc[p][r] = multiply_add(acc[p][r], u, act[p]);
        }
    }
}

/// Sums of two registers of a pair of tokens: 4 rows of the even token, and of the odd one if there is one.
void add_pair(int32_t* c, bool first, bool has_odd, Lane rows01, Lane rows23) {
    add_to(c, first, vuzp1q_s32(rows01, rows23));
    if (has_odd) {
        add_to(c + TRIT_PANEL_ROWS, first, vuzp2q_s32(rows01, rows23));
    }
}

template <int M>
void tile(int fours, const int8_t* unpacked, const int8_t* tokens, bool first, int32_t* c) {
    constexpr int kPairs = (M + 1) / 2;
    Lane acc[kPairs][kPairRegisters] = {};
    for (int l = 0; l < fours; l += 4, unpacked += 1024, tokens += 32 * kPairs) {
        add_eight<kPairs>(acc, unpacked, tokens);
        add_eight<kPairs>(acc, unpacked + 512, tokens + 16 * kPairs);
    }
    TRIT_UNROLL
    for (int p = 0; p < kPairs; ++p) {
        TRIT_UNROLL
        for (int r = 0; r < kPairRegisters; r += 2) {
            add_pair(c + 2 * p * TRIT_PANEL_ROWS + 2 * r, first, 2 * p + 1 < M, acc[p][r], acc[p][r + 1]);
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

/// Sums of 4 rows x P pairs of tokens; those of fields 2 and 3 have codes of 16 times their value.
template <int P>
struct PairSums {
    Lane ones[P][2];
    Lane sixteens[P][2];
};

/// 4 rows x 16 inputs.
template <int P>
void add_bytes(PairSums<P>& sums, uint8x16_t bytes, const int8x16_t (&act)[2][P]) {
    const Pairs pairs(bytes);
    const uint8x16_t low = vdupq_n_u8(0x03);
    const uint8x16_t high = vdupq_n_u8(0x30);
    const int8x16_t u[2] = {codes(vandq_u8(pairs.rows01, low)), codes(vandq_u8(pairs.rows23, low))};
    const int8x16_t v[2] = {codes(vandq_u8(pairs.rows01, high)), codes(vandq_u8(pairs.rows23, high))};
    TRIT_UNROLL
    for (int r = 0; r < 2; ++r) {
        TRIT_UNROLL
        for (int p = 0; p < P; ++p) {
            sums.ones[p][r] = multiply_add(sums.ones[p][r], u[r], act[0][p]);
            sums.sixteens[p][r] = multiply_add(sums.sixteens[p][r], v[r], act[1][p]);
        }
    }
}

/// M tokens straight from a chunk of the panel; `ahead`: what comes behind the chunk. (kChunk / 2 products
/// of at most 48 x 128 fit in 32 bits.)
template <int M>
void few(int fours, const uint8_t* panel, const uint8_t* ahead, const int8_t* q, size_t q_row_bytes,
         bool first, int32_t* c) {
    constexpr int kPairs = (M + 1) / 2;
    constexpr int kRegisters =
        kPairs < 3 ? 2 : 1;  // at most 16 registers of sums, so that nothing is spilled
    alignas(64) int8_t tokens[2 * kPairs * kChunk];
    pair_tokens<M>(fours, q, q_row_bytes, tokens);
    for (int row = 0; row < TRIT_PANEL_ROWS; row += 4 * kRegisters) {
        const uint8_t* bytes = panel + 4 * row;
        const int8_t* x = tokens;
        PairSums<kPairs> sums[kRegisters] = {};
        for (int l = 0; l < fours; l += 4, bytes += 256, ahead += 16 * kRegisters, x += 32 * kPairs) {
            prefetch(ahead);
            int8x16_t act[2][kPairs];
            TRIT_UNROLL
            for (int p = 0; p < kPairs; ++p) {
                act[0][p] = load(x + 16 * p);
                act[1][p] = load(x + 16 * (kPairs + p));
            }
            TRIT_UNROLL
            for (int r = 0; r < kRegisters; ++r) {
                add_bytes<kPairs>(sums[r], load(bytes + 16 * r), act);
            }
        }
        TRIT_UNROLL
        for (int r = 0; r < kRegisters; ++r) {
            TRIT_UNROLL
            for (int p = 0; p < kPairs; ++p) {
                const PairSums<kPairs>& s = sums[r];
                add_pair(c + 2 * p * TRIT_PANEL_ROWS + row + 4 * r, first, 2 * p + 1 < M,
                         vsraq_n_s32(s.ones[p][0], s.sixteens[p][0], 4),
                         vsraq_n_s32(s.ones[p][1], s.sixteens[p][1], 4));
            }
        }
    }
}
