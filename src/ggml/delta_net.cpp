// SPDX-License-Identifier: MIT
#include "ggml/delta_net.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "ggml/floats.h"
#include "ggml/repack.h"
#include "kernels/tier.h"

namespace trit {
namespace {

constexpr int64_t kSize = 128;  ///< a state is kSize rows, one for each value, of kSize inputs
constexpr int kTokens = 16;     ///< their queries and keys (16 KB) stay in the first-level cache
constexpr int kRows = 4;        ///< of a state, while some tokens go by
constexpr int64_t kLongRow = 1 << 16;

bool is_floats(const ggml_tensor* t) { return t->type == GGML_TYPE_F32 && t->nb[0] == sizeof(float); }

struct Token {
    const float* q;
    const float* k;
    const float* v;
    float decay;
    float beta;
    float* out;
};

#ifdef TRIT_HAS_FLOATS
/// Sums that grow side by side, two registers for each row.
struct Sums {
    Floats even[kRows];
    Floats odd[kRows];

    Sums() {
        TRIT_UNROLL
        for (int r = 0; r < kRows; ++r) {
            even[r] = odd[r] = Floats::set(0.0f);
        }
    }
    void total(float* out) const {
        Floats both[kRows];
        TRIT_UNROLL
        for (int r = 0; r < kRows; ++r) {
            both[r] = even[r] + odd[r];
        }
        Floats::four_sums(both, out);
    }
};

/// One register of each row: row = decay * row + delta * k, and the sums of row . q.
TRIT_INLINE void step(float* rows, Floats decay, const Floats (&delta)[kRows], const float* k, const float* q,
                      Floats (&sums)[kRows]) {
    const Floats inputs = Floats::load(k);
    const Floats query = Floats::load(q);
    TRIT_UNROLL
    for (int r = 0; r < kRows; ++r) {
        const Floats s = (Floats::load(rows + r * kSize) * decay).fma(delta[r], inputs);
        s.store(rows + r * kSize);
        sums[r] = sums[r].fma(s, query);
    }
}

/// kRows rows, `row` the first, meet the tokens one after the other: row *= decay, then
/// row += (v - row . k) * beta * k, and out = row . q * scale.
void scan_rows(const Token* tokens, int count, int64_t row, float scale, float* rows) {
    constexpr int kCount = Floats::kCount;
    for (const Token* token = tokens; token < tokens + count; ++token) {
        Sums known;
        for (int i = 0; i < kSize; i += 2 * kCount) {
            const Floats k[2] = {Floats::load(token->k + i), Floats::load(token->k + i + kCount)};
            TRIT_UNROLL
            for (int r = 0; r < kRows; ++r) {
                known.even[r] = known.even[r].fma(Floats::load(rows + r * kSize + i), k[0]);
                known.odd[r] = known.odd[r].fma(Floats::load(rows + r * kSize + i + kCount), k[1]);
            }
        }
        float sums[kRows];
        known.total(sums);
        Floats delta[kRows];
        TRIT_UNROLL
        for (int r = 0; r < kRows; ++r) {
            delta[r] = Floats::set((token->v[row + r] - sums[r] * token->decay) * token->beta);
        }
        const Floats decay = Floats::set(token->decay);
        Sums asked;
        for (int i = 0; i < kSize; i += 2 * kCount) {
            step(rows + i, decay, delta, token->k + i, token->q + i, asked.even);
            step(rows + i + kCount, decay, delta, token->k + i + kCount, token->q + i + kCount, asked.odd);
        }
        asked.total(sums);
        TRIT_UNROLL
        for (int r = 0; r < kRows; ++r) {
            token->out[row + r] = sums[r] * scale;
        }
    }
}

/// Rows `first` to `last` (exclusive) of the state of one head and sequence.
void scan_head(ggml_tensor* dst, int64_t head, int64_t sequence, int64_t first, int64_t last) {
    const ggml_tensor* q = dst->src[0];
    const ggml_tensor* k = dst->src[1];
    const ggml_tensor* v = dst->src[2];
    const ggml_tensor* gate = dst->src[3];
    const ggml_tensor* beta = dst->src[4];
    const ggml_tensor* state = dst->src[5];
    const int64_t heads = v->ne[1];
    const int64_t tokens = v->ne[2];
    const int64_t sequences = v->ne[3];
    // The results of all tokens, then the states.
    auto* out = static_cast<float*>(dst->data) + sequence * tokens * heads * kSize + head * kSize;
    float* to = static_cast<float*>(dst->data) + heads * tokens * sequences * kSize +
                (sequence * heads + head) * kSize * kSize;
    const float* from = static_cast<const float*>(state->data) +
                        sequence * static_cast<int64_t>(state->nb[3] / sizeof(float)) + head * kSize * kSize;
    const float scale = 1.0f / std::sqrt(static_cast<float>(kSize));
    for (int64_t done = 0; done < tokens; done += kTokens) {
        const auto count = static_cast<int>(std::min<int64_t>(kTokens, tokens - done));
        Token some[kTokens];
        for (int i = 0; i < count; ++i) {
            const int64_t t = done + i;
            some[i] = {row_at<float>(q, head % q->ne[1], t, sequence / (sequences / q->ne[3])),
                       row_at<float>(k, head % k->ne[1], t, sequence / (sequences / k->ne[3])),
                       row_at<float>(v, head, t, sequence),
                       std::exp(*row_at<float>(gate, head, t, sequence)),
                       *row_at<float>(beta, head, t, sequence),
                       out + t * heads * kSize};
        }
        for (int64_t row = first; row < last; row += kRows) {
            if (done == 0) {
                std::memcpy(to + row * kSize, from + row * kSize, kRows * kSize * sizeof(float));
            }
            scan_rows(some, count, row, scale, to + row * kSize);
        }
    }
}
#endif

}  // namespace

bool can_scan([[maybe_unused]] const ggml_tensor* op) {
#ifdef TRIT_HAS_FLOATS
    if (op->op != GGML_OP_GATED_DELTA_NET || ggml_get_op_params_i32(op, 0) != 1) {
        return false;
    }
    const ggml_tensor* v = op->src[2];
    bool possible = v->ne[0] == kSize && op->src[0]->ne[0] == kSize && op->src[3]->ne[0] == 1 &&
                    ggml_is_contiguous(op->src[5]);
    for (int i = 0; i < 6; ++i) {
        possible = possible && is_floats(op->src[i]);
    }
    return possible && is_floats(op);
#else
    return false;
#endif
}

size_t scan_work_bytes(const ggml_tensor*, int) { return 0; }

void scan([[maybe_unused]] const ggml_compute_params* params, [[maybe_unused]] ggml_tensor* dst) {
#ifdef TRIT_HAS_FLOATS
    const int64_t heads = dst->src[2]->ne[1];
    const int64_t turns = heads * dst->src[2]->ne[3] * kSize / kRows;
    const int64_t last = turns * (params->ith + 1) / params->nth * kRows;
    for (int64_t row = turns * params->ith / params->nth * kRows; row < last;) {
        const int64_t state = row / kSize;
        const int64_t end = std::min((state + 1) * kSize, last);
        scan_head(dst, state % heads, state / heads, row - state * kSize, end - state * kSize);
        row = end;
    }
#endif
}

bool can_copy_rows(const ggml_tensor* op) {
    return op->op == GGML_OP_GET_ROWS && is_floats(op) && is_floats(op->src[0]) && op->ne[0] >= kLongRow &&
           op->src[1]->type == GGML_TYPE_I32;
}

size_t copy_rows_work_bytes(const ggml_tensor*, int) { return 0; }

void copy_rows(const ggml_compute_params* params, ggml_tensor* dst) {
    const ggml_tensor* from = dst->src[0];
    const ggml_tensor* ids = dst->src[1];
    const int64_t first = dst->ne[0] * params->ith / params->nth;
    const int64_t last = dst->ne[0] * (params->ith + 1) / params->nth;
    for (int64_t i = 0; i < ggml_nelements(ids); ++i) {
        const int64_t i0 = i % ids->ne[0];
        const int64_t i1 = i / ids->ne[0] % ids->ne[1];
        const int64_t i2 = i / ids->ne[0] / ids->ne[1];
        int32_t id = 0;
        std::memcpy(&id,
                    static_cast<const char*>(ids->data) + static_cast<size_t>(i0) * ids->nb[0] +
                        static_cast<size_t>(i1) * ids->nb[1] + static_cast<size_t>(i2) * ids->nb[2],
                    sizeof(id));
        GGML_ASSERT(id >= 0 && id < from->ne[1]);
        std::memcpy(row_at<float>(dst, i0, i1, i2) + first, row_at<const float>(from, id, i1, i2) + first,
                    static_cast<size_t>(last - first) * sizeof(float));
    }
}

}  // namespace trit
