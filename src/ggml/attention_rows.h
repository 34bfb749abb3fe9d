// SPDX-License-Identifier: MIT
/// Attention of one token: up to four query heads that share keys and values read the cache together.
#ifndef TRIT_GGML_ATTENTION_ROWS_H
#define TRIT_GGML_ATTENTION_ROWS_H

#include <algorithm>
#include <cmath>

#include "ggml/floats.h"
#include "kernels/align.h"
#include "kernels/tier.h"

namespace trit {

constexpr int kMaxRows = 4;    ///< query heads that go together
constexpr int64_t kAhead = 8;  ///< positions

/// Keys or values of one head.
struct Cache {
    const char* data;
    size_t stride;
    const ggml_fp16_t* at(int32_t position) const {
        return reinterpret_cast<const ggml_fp16_t*>(data + static_cast<size_t>(position) * stride);
    }
};

/// Asks for a row of n values.
void prefetch([[maybe_unused]] const ggml_fp16_t* row, [[maybe_unused]] int64_t n) {
#if defined(__GNUC__)
    for (int64_t i = 0; i < n; i += static_cast<int64_t>(kCacheLine / sizeof(*row))) {
        __builtin_prefetch(row + i);
    }
#endif
}

/// Lanes of a position: three rows take four, so that registers hold whole positions.
constexpr int lanes(int rows) { return rows == 3 ? 4 : rows; }

/// out[p][r] = q[r] . keys at visible[p]. Enough sums side by side to hide the latency of one.
template <int R, int P>
void score(const Cache& keys, const int32_t* visible, const float* q, int64_t dk, float* out) {
    Floats sums[P][R];
    const ggml_fp16_t* key[P];
    TRIT_UNROLL
    for (int p = 0; p < P; ++p) {
        key[p] = keys.at(visible[p]);
        TRIT_UNROLL
        for (int r = 0; r < R; ++r) {
            sums[p][r] = Floats::set(0.0f);
        }
    }
    for (int64_t d = 0; d < dk; d += Floats::kCount) {
        Floats x[R];
        TRIT_UNROLL
        for (int r = 0; r < R; ++r) {
            x[r] = Floats::load(q + r * dk + d);
        }
        TRIT_UNROLL
        for (int p = 0; p < P; ++p) {
            const Floats y = Floats::load(key[p] + d);
            TRIT_UNROLL
            for (int r = 0; r < R; ++r) {
                sums[p][r] = sums[p][r].fma(y, x[r]);
            }
        }
    }
    TRIT_UNROLL
    for (int p = 0; p < P; ++p) {
        if constexpr (R == 4) {
            Floats::four_sums(sums[p], out + 4 * p);
            continue;
        }
        TRIT_UNROLL
        for (int r = 0; r < R; ++r) {
            out[p * lanes(R) + r] = sums[p][r].sum();
        }
    }
}

/// out[r][C registers] = sum over positions of weights[p][r] values at visible[p].
template <int R, int C>
void add_values(const Cache& values, const int32_t* visible, int64_t count, const float* weights, int64_t d,
                float* const* out) {
    Floats sums[R][C] = {};
    for (int64_t p = 0; p < count; ++p) {
        const ggml_fp16_t* value = values.at(visible[p]) + d;
        Floats x[C];
        TRIT_UNROLL
        for (int c = 0; c < C; ++c) {
            x[c] = Floats::load(value + c * Floats::kCount);
        }
        TRIT_UNROLL
        for (int r = 0; r < R; ++r) {
            const Floats weight = Floats::set(weights[p * lanes(R) + r]);
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
            sums[r][c].store(out[r] + d + c * Floats::kCount);
        }
    }
}

/// weights[count][lanes] become exp(weight - largest of the row); largest and sum of each row.
template <int R>
void soften(float* weights, int64_t count, float* largest, float* sum) {
    constexpr int kLanes = lanes(R);
    const int64_t n = (count * kLanes + Floats::kCount - 1) / Floats::kCount * Floats::kCount;
    std::fill(weights + count * kLanes, weights + n, -INFINITY);
    Floats most = Floats::load(weights);
    for (int64_t i = Floats::kCount; i < n; i += Floats::kCount) {
        most = most.max(Floats::load(weights + i));
    }
    float lane[Floats::kCount];
    most.store(lane);
    for (int i = kLanes; i < Floats::kCount; ++i) {
        lane[i % kLanes] = std::max(lane[i % kLanes], lane[i]);
    }
    for (int i = kLanes; i < Floats::kCount; ++i) {
        lane[i] = lane[i % kLanes];
    }
    std::copy(lane, lane + R, largest);
    most = Floats::load(lane);
    Floats sums = Floats::set(0.0f);
    for (int64_t i = 0; i < n; i += Floats::kCount) {
        const Floats e = (Floats::load(weights + i) - most).exp();
        e.store(weights + i);
        sums = sums + e;
    }
    sums.store(lane);
    for (int r = 0; r < R; ++r) {
        sum[r] = 0.0f;
        for (int i = r; i < Floats::kCount; i += kLanes) {
            sum[r] += lane[i];
        }
    }
}

/// What a token's heads read, and their memory.
struct RowsOfToken {
    int64_t dk, dv;
    Cache keys, values;
    const float* q;  ///< [rows][dk], scaled
    float* weights;  ///< [positions of a chunk][lanes]
};

/// One chunk of positions for R rows: partial[r] = {largest score, sum of exponentials, sums of values}.
template <int R>
void attend_chunk(const RowsOfToken& x, const int32_t* visible, const float* bias, int64_t count,
                  float* const* partial) {
    constexpr int kLanes = lanes(R);
    constexpr int kAtOnce = R == 4 ? Floats::kSums / R : 4;
    float* weights = x.weights;
    if (R == 3) {
        std::fill(weights, weights + count * kLanes, 0.0f);
    }
    int64_t p = 0;
    for (; p + kAtOnce <= count; p += kAtOnce) {
        // Rows lie apart by all heads, which no hardware foresees: the keys ahead, and the values that are
        // next.
        for (int i = 0; i < kAtOnce; ++i) {
            prefetch(x.keys.at(visible[std::min(p + i + kAhead, count - 1)]), x.dk);
            prefetch(x.values.at(visible[p + i]), x.dv);
        }
        score<R, kAtOnce>(x.keys, visible + p, x.q, x.dk, weights + p * kLanes);
    }
    for (; p < count; ++p) {
        score<R, 1>(x.keys, visible + p, x.q, x.dk, weights + p * kLanes);
    }
    for (p = 0; p < count; ++p) {
        for (int r = 0; r < R; ++r) {
            weights[p * kLanes + r] += bias[p];
        }
    }
    float largest[R];
    float sum[R];
    soften<R>(weights, count, largest, sum);
    float* out[R];
    for (int r = 0; r < R; ++r) {
        partial[r][0] = largest[r];
        partial[r][1] = sum[r];
        out[r] = partial[r] + 2;
    }
    constexpr int kRegisters = std::min(8, Floats::kSums / lanes(R));
    int64_t d = 0;
    for (; d + kRegisters * Floats::kCount <= x.dv; d += kRegisters * Floats::kCount) {
        add_values<R, kRegisters>(x.values, visible, count, weights, d, out);
    }
    for (; d < x.dv; d += Floats::kCount) {
        add_values<R, 1>(x.values, visible, count, weights, d, out);
    }
}

}  // namespace trit

#endif  // TRIT_GGML_ATTENTION_ROWS_H
