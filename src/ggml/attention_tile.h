// SPDX-License-Identifier: MIT
/// Attention of several tokens that see the same positions: sums of a tile of rows and positions stay in
/// registers, and keys and values are converted once for all rows.
///
/// A row is one query head of one token. Scores have rows in their lanes: a lane that attention_rows.h adds
/// up over inputs is a pass of its own here, and passes are added in the order of its lanes. So each result
/// has the bits that a token has alone.
#ifndef TRIT_GGML_ATTENTION_TILE_H
#define TRIT_GGML_ATTENTION_TILE_H

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "ggml/attention_rows.h"
#include "ggml/floats.h"
#include "kernels/tier.h"

namespace trit {

constexpr int kTileRows = 16;
constexpr int kTileRegisters = kTileRows / Floats::kCount;

/// The order in which a score's lanes are added: that of `score` for as many rows of a token.
inline const int* lane_order(int rows) { return rows == 4 ? Floats::kFourSumsOrder : Floats::kSumOrder; }

/// Columns of values whose sums stay in registers, for so many rows of a token.
constexpr int tile_columns(int rows) { return std::min(8, (Floats::kRegisters - 1) / (rows + 1)); }

/// One row of q, scaled, becomes lane `row` of tile[dk][kTileRows], in the order of passes.
inline void lay_out_query(const float* q, float scale, int64_t dk, const int* order, int row, float* tile) {
    tile += row;
    for (int pass = 0; pass < Floats::kCount; ++pass) {
        for (int64_t d = order[pass]; d < dk; d += Floats::kCount, tile += kTileRows) {
            *tile = q[d] * scale;
        }
    }
}

/// keys[count][dk] of the listed positions, in single precision.
inline void convert_keys(const Cache& cache, const int32_t* listed, int64_t count, int64_t dk, float* keys) {
    for (int64_t p = 0; p < count; ++p, keys += dk) {
        prefetch(cache.at(listed[std::min(p + kAhead, count - 1)]), dk);
        const ggml_fp16_t* key = cache.at(listed[p]);
        for (int64_t d = 0; d < dk; d += Floats::kCount) {
            Floats::load(key + d).store(keys + d);
        }
    }
}

/// Columns of values in strips of nearly the same width: strip i is [count][width] registers from its first
/// column on, times count.
struct Strips {
    int64_t count, least, wider;

    Strips(int64_t dv, int rows) {
        const int64_t columns = dv / Floats::kCount;
        count = (columns + tile_columns(rows) - 1) / tile_columns(rows);
        least = columns / count;
        wider = columns % count;
    }
    int64_t first(int64_t strip) const { return strip * least + std::min(strip, wider); }
    int width(int64_t strip) const { return static_cast<int>(least + (strip < wider ? 1 : 0)); }
};

/// The values of the listed positions in single precision, strip by strip.
inline void convert_values(const Cache& cache, const int32_t* listed, int64_t count, int64_t dv,
                           const Strips& strips, float* values) {
    for (int64_t p = 0; p < count; ++p) {
        prefetch(cache.at(listed[std::min(p + kAhead, count - 1)]), dv);
        const ggml_fp16_t* value = cache.at(listed[p]);
        for (int64_t s = 0; s < strips.count; ++s) {
            const int width = strips.width(s);
            float* to = values + (strips.first(s) * count + p * width) * Floats::kCount;
            for (int c = 0; c < width; ++c, value += Floats::kCount) {
                Floats::load(value).store(to + c * Floats::kCount);
            }
        }
    }
}

/// scores[P][kTileRows] of one tile's rows and keys[P][dk].
template <int P>
void tile_score(const float* q, const float* keys, int64_t dk, const int* order, float* scores) {
    // What is carried from pass to pass, as in a binary counter: a sum of 1, 2, 4, ... passes.
    constexpr int kLevels = Floats::kCount == 16 ? 4 : Floats::kCount == 8 ? 3 : 2;
    float carried[kLevels][P * kTileRows];
    for (int pass = 0; pass < Floats::kCount; ++pass) {
        Floats sums[P][kTileRegisters];
        TRIT_UNROLL_24
        for (int p = 0; p < P; ++p) {
            TRIT_UNROLL
            for (int v = 0; v < kTileRegisters; ++v) {
                sums[p][v] = Floats::set(0.0f);
            }
        }
        for (int64_t d = order[pass]; d < dk; d += Floats::kCount, q += kTileRows) {
            Floats x[kTileRegisters];
            TRIT_UNROLL
            for (int v = 0; v < kTileRegisters; ++v) {
                x[v] = Floats::load(q + v * Floats::kCount);
            }
            TRIT_UNROLL_24
            for (int p = 0; p < P; ++p) {
                const Floats y = Floats::set(keys[p * dk + d]);
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
                    const int at = p * kTileRows + v * Floats::kCount;
                    sums[p][v] = Floats::load(carried[level] + at) + sums[p][v];
                }
            }
        }
        float* to = level == kLevels ? scores : carried[level];
        TRIT_UNROLL_24
        for (int p = 0; p < P; ++p) {
            TRIT_UNROLL
            for (int v = 0; v < kTileRegisters; ++v) {
                sums[p][v].store(to + p * kTileRows + v * Floats::kCount);
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
    constexpr int kAtOnce = Floats::kCount == 16 ? 12 : Floats::kRegisters == 16 ? 6 : 4;
    int64_t p = 0;
    for (; p + kAtOnce <= count; p += kAtOnce) {
        tile_score<kAtOnce>(q, keys + p * dk, dk, order, scores + p * kTileRows);
    }
    tile_score_rest<kAtOnce>(q, keys + p * dk, count - p, dk, order, scores + p * kTileRows);
}

/// scores[count][kTileRows] become exp(score - largest of the row); largest and sum of each row, in the order
/// of `soften` for R rows of a token. A row's hidden positions hold minus infinity; one with no other is not
/// looked at afterwards.
template <int R>
void tile_soften(float* scores, int64_t count, float* largest, float* sum) {
    constexpr int kInterleaved = Floats::kCount / lanes(R);
    for (int v = 0; v < kTileRows; v += Floats::kCount) {
        Floats most = Floats::load(scores + v);
        for (int64_t p = 1; p < count; ++p) {
            most = most.max(Floats::load(scores + p * kTileRows + v));
        }
        most.store(largest + v);
        Floats sums[kInterleaved] = {};
        int64_t p = 0;
        for (; p + kInterleaved <= count; p += kInterleaved) {
            for (int i = 0; i < kInterleaved; ++i) {
                float* at = scores + (p + i) * kTileRows + v;
                const Floats e = (Floats::load(at) - most).exp();
                e.store(at);
                sums[i] = sums[i] + e;
            }
        }
        for (int i = 0; p < count; ++p, ++i) {
            float* at = scores + p * kTileRows + v;
            const Floats e = (Floats::load(at) - most).exp();
            e.store(at);
            sums[i] = sums[i] + e;
        }
        Floats all = Floats::set(0.0f);
        for (const Floats& one : sums) {
            all = all + one;
        }
        all.store(sum + v);
    }
}

/// For R rows of a token and C registers of columns: whole = whole a + b (sum over positions of weights[p]
/// times values[p]); that sum itself where a is null. weights[count][kTileRows], values[count][C registers],
/// whole[R] by stride.
template <int R, int C>
void tile_values(const float* values, const float* weights, int64_t count, const float* a, const float* b,
                 float* whole, int64_t stride) {
    Floats sums[R][C] = {};
    for (int64_t p = 0; p < count; ++p, values += C * Floats::kCount, weights += kTileRows) {
        Floats x[C];
        TRIT_UNROLL
        for (int c = 0; c < C; ++c) {
            x[c] = Floats::load(values + c * Floats::kCount);
        }
        TRIT_UNROLL
        for (int r = 0; r < R; ++r) {
            const Floats weight = Floats::set(weights[r]);
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
            float* at = whole + r * stride + c * Floats::kCount;
            if (a == nullptr) {
                sums[r][c].store(at);
            } else {
                (Floats::load(at) * Floats::set(a[r])).fma(sums[r][c], Floats::set(b[r])).store(at);
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

}  // namespace trit

#endif  // TRIT_GGML_ATTENTION_TILE_H
