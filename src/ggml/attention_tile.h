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

/// The order in which a score's lanes are added: that of `score` for as many rows of a token.
inline const int* lane_order(int rows) { return rows == 4 ? Floats::kFourSumsOrder : Floats::kSumOrder; }

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

/// The loops over a tile that multiply, for one kind of register.
struct TileKernels {
    int lanes;              ///< of a register
    int columns[kMaxRows];  ///< [rows of a token - 1] most registers of a strip: their sums stay in registers
    /// scores[count][kTileRows] of one tile's rows and keys[count][dk].
    void (*scores)(const float* q, const float* keys, int64_t count, int64_t dk, const int* order,
                   float* scores);
    /// [rows of a token - 1] Adds a strip of values to the rows' sums: tile_values.
    void (*strip[kMaxRows])(int width, const float* values, const float* weights, int64_t count,
                            const float* a, const float* b, float* whole, int64_t stride);
};

/// Columns of values in strips of nearly the same width: strip i is [count][width] registers from its first
/// column on, times count.
struct Strips {
    int64_t lanes, count, least, wider;

    Strips(int64_t dv, int rows, const TileKernels& kernels) {
        lanes = kernels.lanes;
        const int64_t columns = dv / lanes;
        const int64_t most = kernels.columns[rows - 1];
        count = (columns + most - 1) / most;
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
            const int64_t width = strips.width(s) * strips.lanes;
            float* to = values + strips.first(s) * strips.lanes * count + p * width;
            for (int64_t c = 0; c < width; c += Floats::kCount, value += Floats::kCount) {
                Floats::load(value).store(to + c);
            }
        }
    }
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

/// For the CPU that this file is compiled for.
namespace as_compiled {
using Register = Floats;
#include "ggml/attention_tile-inl.h"
}  // namespace as_compiled

#ifdef TRIT_HAS_WIDE_FLOATS
/// For those that have more.
TRIT_TARGET_BEGIN("avx512f")
namespace avx512 {
using Register = WideFloats;
#include "ggml/attention_tile-inl.h"
}  // namespace avx512
TRIT_TARGET_END
#endif

}  // namespace trit

#endif  // TRIT_GGML_ATTENTION_TILE_H
