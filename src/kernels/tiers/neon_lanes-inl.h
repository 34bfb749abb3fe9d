// SPDX-License-Identifier: MIT
/// Several tokens, with four neighbouring activations repeated in every lane. Included after
/// neon_common-inl.h, inside the target region and the anonymous namespace of a tier, which defines beside
/// what neon_common-inl.h needs:
///
///     Lane add_four<F>(Lane, u, act)   4 rows x inputs 4 F ... 4 F + 3: 16 products, sums stay in their rows
///     kTileRegisters, kTileTokens      a tile's registers of 4 rows, and most tokens
///
/// Unpacked codes: 4 inputs x 64 rows = 16 registers, one after the other, like the panel's.

constexpr int kChunk = 256;  // inputs: 16 KB of codes, which stay in the first-level cache
static_assert(kMostAdds >= kChunk / 4, "a chunk is added up without widening");

constexpr size_t kUnpackAhead = 2048;

void unpack_step(const uint8_t* panel, int8_t* out) {
    for (int r = 0; r < 256; r += 16) {
        prefetch(panel + kUnpackAhead + r);
        const uint8x16_t bytes = load(panel + r);
        vst1q_s8(out + r, field<0>(bytes));
        vst1q_s8(out + 256 + r, field<1>(bytes));
        vst1q_s8(out + 512 + r, field<2>(bytes));
        vst1q_s8(out + 768 + r, field<3>(bytes));
    }
}

/// Inputs 4 F ... 4 F + 3 of a step.
template <int F, int M>
void add_field(Lane (&acc)[M][kTileRegisters], const int8_t* unpacked, const int8x16_t (&act)[M]) {
    TRIT_UNROLL
    for (int r = 0; r < kTileRegisters; ++r) {
        const int8x16_t u = load(unpacked + 256 * F + 16 * r);
        TRIT_UNROLL
        for (int j = 0; j < M; ++j) {
            acc[j][r] = add_four<F>(acc[j][r], u, act[j]);
        }
    }
}

template <int M>
void tile(int fours, const int8_t* unpacked, const int8_t* q, size_t q_row_bytes, bool first, int32_t* c) {
    Lane acc[M][kTileRegisters] = {};
    for (int l = 0; l < fours; l += 4, unpacked += 4 * 256, q += 16) {
        int8x16_t act[M];
        TRIT_UNROLL
        for (int j = 0; j < M; ++j) {
            act[j] = load(q + static_cast<size_t>(j) * q_row_bytes);
        }
        add_field<0>(acc, unpacked, act);
        add_field<1>(acc, unpacked, act);
        add_field<2>(acc, unpacked, act);
        add_field<3>(acc, unpacked, act);
    }
    TRIT_UNROLL
    for (int j = 0; j < M; ++j) {
        TRIT_UNROLL
        for (int r = 0; r < kTileRegisters; ++r) {
            add_to(c + j * TRIT_PANEL_ROWS + 4 * r, first, widen(acc[j][r]));
        }
    }
}

template <int M>
void tiles(int fours, const int8_t* unpacked, const int8_t* q, size_t q_row_bytes, bool first, int32_t* c) {
    for (int row = 0; row < TRIT_PANEL_ROWS; row += 4 * kTileRegisters) {
        tile<M>(fours, unpacked + 4 * row, q, q_row_bytes, first, c + row);
    }
}

/// Field F of a register of the panel, cut out once for all tokens.
template <int F, int M>
void add_cut(Lane (&acc)[M], uint8x16_t bytes, const int8x16_t (&act)[M]) {
    const int8x16_t u = field<F>(bytes);
    TRIT_UNROLL
    for (int j = 0; j < M; ++j) {
        acc[j] = add_four<F>(acc[j], u, act[j]);
    }
}

/// M tokens straight from a chunk of the panel; `ahead`: what comes behind the chunk.
template <int M>
void few(int fours, const uint8_t* panel, const uint8_t* ahead, const int8_t* q, size_t q_row_bytes,
         bool first, int32_t* c) {
    for (int row = 0; row < TRIT_PANEL_ROWS; row += 4 * kTileRegisters) {
        const uint8_t* bytes = panel + 4 * row;
        const int8_t* x = q;
        Lane acc[kTileRegisters][M] = {};
        for (int l = 0; l < fours; l += 4, bytes += 256, ahead += 16 * kTileRegisters, x += 16) {
            prefetch(ahead);
            int8x16_t act[M];
            TRIT_UNROLL
            for (int j = 0; j < M; ++j) {
                act[j] = load(x + static_cast<size_t>(j) * q_row_bytes);
            }
            TRIT_UNROLL
            for (int r = 0; r < kTileRegisters; ++r) {
                const uint8x16_t step = load(bytes + 16 * r);
                add_cut<0>(acc[r], step, act);
                add_cut<1>(acc[r], step, act);
                add_cut<2>(acc[r], step, act);
                add_cut<3>(acc[r], step, act);
            }
        }
        TRIT_UNROLL
        for (int r = 0; r < kTileRegisters; ++r) {
            TRIT_UNROLL
            for (int j = 0; j < M; ++j) {
                add_to(c + j * TRIT_PANEL_ROWS + row + 4 * r, first, widen(acc[r][j]));
            }
        }
    }
}
