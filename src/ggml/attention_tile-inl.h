// SPDX-License-Identifier: MIT
/// The sums of attention_tile.h in registers of one kind. A row or a column has a lane of its own, so that
/// the width of a register changes no bit; passes and their order are those of Floats.
///
/// In scope when included: Register.

constexpr int kTileRegisters = kTileRows / Register::kCount;

/// Columns of values whose sums stay in registers, for so many rows of a token.
/// (On ARM, GCC keeps each row's weight in a register; on x86-64 it comes from memory.)
constexpr int tile_columns(int rows) {
    const int weights = Register::kCount == 4 ? rows : 1;
    return std::min(8, (Register::kRegisters - weights) / (rows + 1));
}

/// scores[P][kTileRows] of one tile's rows and keys[P][dk].
template <int P>
void tile_score(const float* q, const float* keys, int64_t dk, const int* order, float* scores) {
    // What is carried from pass to pass, as in a binary counter: a sum of 1, 2, 4, ... passes.
    constexpr int kLevels = Floats::kCount == 16 ? 4 : Floats::kCount == 8 ? 3 : 2;
    float carried[kLevels][P * kTileRows];
    for (int pass = 0; pass < Floats::kCount; ++pass) {
        Register sums[P][kTileRegisters];
        TRIT_UNROLL_24
        for (int p = 0; p < P; ++p) {
            TRIT_UNROLL
            for (int v = 0; v < kTileRegisters; ++v) {
                sums[p][v] = Register::set(0.0f);
            }
        }
        for (int64_t d = order[pass]; d < dk; d += Floats::kCount, q += kTileRows) {
            Register x[kTileRegisters];
            TRIT_UNROLL
            for (int v = 0; v < kTileRegisters; ++v) {
                x[v] = Register::load(q + v * Register::kCount);
            }
            TRIT_UNROLL_24
            for (int p = 0; p < P; ++p) {
                const Register y = Register::set(keys[p * dk + d]);
                TRIT_UNROLL
                for (int v = 0; v < kTileRegisters; ++v) {
                    sums[p][v] = sums[p][v].fma(y, x[v]);
                }
            }
        }
        int level = 0;
        for (; (pass >> level & 1) != 0; ++level) {
            TRIT_UNROLL_24
            for (int p = 0; p < P; ++p) {
                TRIT_UNROLL
                for (int v = 0; v < kTileRegisters; ++v) {
                    const int at = p * kTileRows + v * Register::kCount;
                    sums[p][v] = Register::load(carried[level] + at) + sums[p][v];
                }
            }
        }
        float* to = level == kLevels ? scores : carried[level];
        TRIT_UNROLL_24
        for (int p = 0; p < P; ++p) {
            TRIT_UNROLL
            for (int v = 0; v < kTileRegisters; ++v) {
                sums[p][v].store(to + p * kTileRows + v * Register::kCount);
            }
        }
    }
}

/// The same for fewer than P positions.
template <int P>
void tile_score_rest(const float* q, const float* keys, int64_t count, int64_t dk, const int* order,
                     float* scores) {
    if constexpr (P > 1) {
        if (count == P - 1) {
            tile_score<P - 1>(q, keys, dk, order, scores);
        } else {
            tile_score_rest<P - 1>(q, keys, count, dk, order, scores);
        }
    }
}

/// scores[count][kTileRows] of one tile's rows and keys[count][dk].
inline void tile_scores(const float* q, const float* keys, int64_t count, int64_t dk, const int* order,
                        float* scores) {
    constexpr int kAtOnce = Register::kCount == 16 ? 12 : Register::kRegisters == 16 ? 6 : 4;
    int64_t p = 0;
    for (; p + kAtOnce <= count; p += kAtOnce) {
        tile_score<kAtOnce>(q, keys + p * dk, dk, order, scores + p * kTileRows);
    }
    tile_score_rest<kAtOnce>(q, keys + p * dk, count - p, dk, order, scores + p * kTileRows);
}

/// For R rows of a token and C registers of columns: whole = whole a + b (sum over positions of weights[p]
/// times values[p]); that sum itself where a is null. weights[count][kTileRows], values[count][C registers],
/// whole[R] by stride.
template <int R, int C>
void tile_values(const float* values, const float* weights, int64_t count, const float* a, const float* b,
                 float* whole, int64_t stride) {
    Register sums[R][C] = {};
    for (int64_t p = 0; p < count; ++p, values += C * Register::kCount, weights += kTileRows) {
        Register x[C];
        TRIT_UNROLL
        for (int c = 0; c < C; ++c) {
            x[c] = Register::load(values + c * Register::kCount);
        }
        TRIT_UNROLL
        for (int r = 0; r < R; ++r) {
            const Register weight = Register::set(weights[r]);
            TRIT_UNROLL
            for (int c = 0; c < C; ++c) {
                sums[r][c] = sums[r][c].fma(weight, x[c]);
            }
        }
    }
    TRIT_UNROLL
    for (int r = 0; r < R; ++r) {
        TRIT_UNROLL
        for (int c = 0; c < C; ++c) {
            float* at = whole + r * stride + c * Register::kCount;
            if (a == nullptr) {
                sums[r][c].store(at);
            } else {
                (Register::load(at) * Register::set(a[r])).fma(sums[r][c], Register::set(b[r])).store(at);
            }
        }
    }
}

/// The same for strips of C registers or fewer.
template <int R, int C = tile_columns(R)>
void tile_strip(int width, const float* values, const float* weights, int64_t count, const float* a,
                const float* b, float* whole, int64_t stride) {
    if (width == C) {
        tile_values<R, C>(values, weights, count, a, b, whole, stride);
    } else if constexpr (C > 1) {
        tile_strip<R, C - 1>(width, values, weights, count, a, b, whole, stride);
    }
}

constexpr TileKernels kTiles = {
    Register::kCount,
    {tile_columns(1), tile_columns(2), tile_columns(3), tile_columns(4)},
    tile_scores,
    {tile_strip<1>, tile_strip<2>, tile_strip<3>, tile_strip<4>},
};
