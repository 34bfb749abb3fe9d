// SPDX-License-Identifier: MIT
/// In-place i2_s of the ARM tiers. Included after neon_common-inl.h, inside the target region and the
/// anonymous namespace of a tier, which defines beside what that needs:
///
///     kInPlaceRows    rows of a tile of 4 tokens; their sums fill half of the registers
///
/// A block is 32 bytes; field f of byte p is weight 32 f + p, so that each field meets 32 neighbouring
/// activations. A register of activations serves all rows of a tile, and one of codes all tokens.

// Tiles of 2 rows x 4 tokens, or 4 rows x 1 token. (With 4 x 4 GCC spills.)
constexpr int kInPlaceTokens = 4;
constexpr int kInPlaceTileRows = 2;
constexpr int kInPlaceRows = 4;

/// Field F of a register of each row against the activations that it meets.
template <int F, int R, int M>
void add_in_place(Lane (&lane)[R][M], const uint8x16_t (&bytes)[R], const int8_t* q, size_t q_row_bytes) {
    int8x16_t act[M];
    TRIT_UNROLL
    for (int j = 0; j < M; ++j) {
        act[j] = load(q + static_cast<size_t>(j) * q_row_bytes + 32 * F);
    }
    TRIT_UNROLL
    for (int r = 0; r < R; ++r) {
        const int8x16_t u = field<3 - F>(bytes[r]);
        TRIT_UNROLL
        for (int j = 0; j < M; ++j) {
            lane[r][j] = add(lane[r][j], u, act[j]);
        }
    }
}

/// R rows against M tokens.
template <int R, int M>
void rows_by_tokens(int64_t blocks, const uint8_t* w, size_t w_row_bytes, const int8_t* q, size_t q_row_bytes,
                    int32_t* c, size_t c_stride) {
    constexpr int64_t kFlushBlocks = kMostAdds / 8;  // 4 fields of 2 registers
    int32x4_t total[R][M] = {};
    for (int64_t first = 0; first < blocks; first += kFlushBlocks) {
        const int64_t last = first + kFlushBlocks < blocks ? first + kFlushBlocks : blocks;
        Lane lane[R][M] = {};
        for (int64_t half = 2 * first; half < 2 * last; ++half) {
            const int8_t* x = q + half / 2 * TRIT_I2_S_BLOCK + half % 2 * 16;
            uint8x16_t bytes[R];
            TRIT_UNROLL
            for (int r = 0; r < R; ++r) {
                bytes[r] = load(w + static_cast<size_t>(r) * w_row_bytes + half * 16);
            }
            add_in_place<0>(lane, bytes, x, q_row_bytes);
            add_in_place<1>(lane, bytes, x, q_row_bytes);
            add_in_place<2>(lane, bytes, x, q_row_bytes);
            add_in_place<3>(lane, bytes, x, q_row_bytes);
        }
        TRIT_UNROLL
        for (int r = 0; r < R; ++r) {
            TRIT_UNROLL
            for (int j = 0; j < M; ++j) {
                total[r][j] = vaddq_s32(total[r][j], widen(lane[r][j]));
            }
        }
    }
    TRIT_UNROLL
    for (int r = 0; r < R; ++r) {
        TRIT_UNROLL
        for (int j = 0; j < M; ++j) {
            c[static_cast<size_t>(j) * c_stride + r] = vaddvq_s32(total[r][j]);
        }
    }
}

/// R rows against all tokens.
template <int R>
void rows_in_place(int64_t blocks, const uint8_t* w, size_t w_row_bytes, const int8_t* q, size_t q_row_bytes,
                   int m, int32_t* c, size_t c_stride) {
    constexpr int kRows = R < kInPlaceTileRows ? R : kInPlaceTileRows;
    int j = 0;
    for (; j + kInPlaceTokens <= m; j += kInPlaceTokens) {
        for (int r = 0; r < R; r += kRows) {
            rows_by_tokens<kRows, kInPlaceTokens>(blocks, w + static_cast<size_t>(r) * w_row_bytes,
                                                  w_row_bytes, q, q_row_bytes, c + r, c_stride);
        }
        q += kInPlaceTokens * q_row_bytes;
        c += kInPlaceTokens * c_stride;
    }
    for (; j < m; ++j, q += q_row_bytes, c += c_stride) {
        rows_by_tokens<R, 1>(blocks, w, w_row_bytes, q, q_row_bytes, c, c_stride);
    }
}

void i2_s(int64_t k, const uint8_t* w, size_t w_row_bytes, int n, const int8_t* q, size_t q_row_bytes, int m,
          int32_t* c, size_t c_stride) {
    const int64_t blocks = k / TRIT_I2_S_BLOCK;
    int i = 0;
    for (; i + kInPlaceRows <= n; i += kInPlaceRows) {
        rows_in_place<kInPlaceRows>(blocks, w + static_cast<size_t>(i) * w_row_bytes, w_row_bytes, q,
                                    q_row_bytes, m, c + i, c_stride);
    }
    for (; i < n; ++i) {
        rows_in_place<1>(blocks, w + static_cast<size_t>(i) * w_row_bytes, w_row_bytes, q, q_row_bytes, m,
                         c + i, c_stride);
    }
}
