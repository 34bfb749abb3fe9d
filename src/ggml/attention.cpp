// SPDX-License-Identifier: MIT
/// Upstream's attention of up to 63 tokens takes one query head after the other, converts every key and value
/// again for each, and sums values in half precision; more tokens go through tiles of 64, hidden positions
/// included. Here up to four heads that share keys and values go together, and sums are single precision.
///
/// The visible positions of a token are cut into chunks of a size that depends on their number alone; each
/// chunk gives a maximum, a sum of exponentials and a sum of values, which are put together in the order of
/// chunks. So a token's result is the same on any number of threads, and alone as in any batch.
#include "ggml/attention.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "ggml-backend-impl.h"
#include "ggml-backend.h"
#include "ggml-impl.h"
#include "ggml/floats.h"
#include "ggml/repack.h"
#include "kernels/align.h"
#include "kernels/tier.h"

#ifdef TRIT_HAS_FLOATS

namespace trit {
namespace {

constexpr int kMaxRows = 4;      ///< query heads that go together
constexpr int kChunk = 64;       ///< positions; chunks are multiples of it
constexpr int64_t kChunks = 32;  ///< most chunks of a token
constexpr int64_t kMaxHead = 512;
constexpr int64_t kAhead = 8;         ///< positions
constexpr uint16_t kHidden = 0xFC00;  ///< minus infinity in a mask
/// With so many blocks of rows for each thread, no block is shared out.
constexpr int64_t kBlocksPerThread = 4;

int64_t chunk_of(int64_t positions) {
    return std::max<int64_t>(kChunk, (positions + kChunks * kChunk - 1) / (kChunks * kChunk) * kChunk);
}

/// What the op's tensors say, by the names of attention.
struct Sizes {
    int64_t dk, dv, tokens, heads, kv_heads, positions, streams;
    int64_t group;   ///< query heads that share keys and values
    int64_t blocks;  ///< of up to kMaxRows rows, of one token

    explicit Sizes(const ggml_tensor* op) {
        const ggml_tensor* q = op->src[0];
        const ggml_tensor* k = op->src[1];
        dk = q->ne[0];
        dv = op->src[2]->ne[0];
        tokens = q->ne[1];
        heads = q->ne[2];
        streams = q->ne[3];
        positions = k->ne[1];
        kv_heads = k->ne[2];
        group = heads / kv_heads;
        blocks = kv_heads * ((group + kMaxRows - 1) / kMaxRows);
    }
    int64_t all_blocks() const { return blocks * tokens * streams; }
    int64_t most_chunks() const {
        // Not (positions / chunk_of(positions)): fewer visible positions may make more chunks.
        return std::min<int64_t>(kChunks, (positions + kChunk - 1) / kChunk);
    }
    /// Maximum, sum, and the sums of values of a row's chunk; lines of its own for each.
    size_t partial_floats() const {
        return align_up(static_cast<size_t>(2 + dv) * sizeof(float)) / sizeof(float);
    }
    bool shares_blocks(int threads) const { return all_blocks() < kBlocksPerThread * threads; }
};

/// A thread's own memory.
struct Scratch {
    int32_t* visible;  ///< positions that the mask leaves
    float* bias;       ///< what it adds there
    float* q;          ///< [kMaxRows][dk], scaled
    float* weights;    ///< [positions of a chunk][rows]
    float* partial[kMaxRows];
    float* whole[kMaxRows];

    Scratch(char* memory, const Sizes& s) {
        visible = reinterpret_cast<int32_t*>(memory);
        bias = reinterpret_cast<float*>(memory += list_bytes(s));
        q = reinterpret_cast<float*>(memory += list_bytes(s));
        weights = reinterpret_cast<float*>(memory += q_bytes(s));
        memory += weight_bytes(s);
        for (int r = 0; r < kMaxRows; ++r, memory += 2 * partial_bytes(s)) {
            partial[r] = reinterpret_cast<float*>(memory);
            whole[r] = reinterpret_cast<float*>(memory + partial_bytes(s));
        }
    }

    static size_t bytes(const Sizes& s) {
        return 2 * list_bytes(s) + q_bytes(s) + weight_bytes(s) + 2 * kMaxRows * partial_bytes(s);
    }

 private:
    static size_t list_bytes(const Sizes& s) {
        return align_up(static_cast<size_t>(s.positions) * sizeof(float));
    }
    static size_t q_bytes(const Sizes& s) {
        return align_up(static_cast<size_t>(kMaxRows * s.dk) * sizeof(float));
    }
    static size_t weight_bytes(const Sizes& s) {
        return align_up(static_cast<size_t>(kMaxRows * chunk_of(s.positions) + Floats::kCount) *
                        sizeof(float));
    }
    static size_t partial_bytes(const Sizes& s) { return s.partial_floats() * sizeof(float); }
};

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

/// One chunk of positions for R rows: partial[r] = {largest score, sum of exponentials, sums of values}.
template <int R>
void attend_chunk(const Sizes& s, const Cache& keys, const Cache& values, const int32_t* visible,
                  const float* bias, int64_t count, const Scratch& scratch, float* const* partial) {
    constexpr int kLanes = lanes(R);
    constexpr int kAtOnce = R == 4 ? Floats::kSums / R : 4;
    float* weights = scratch.weights;
    if (R == 3) {
        std::fill(weights, weights + count * kLanes, 0.0f);
    }
    int64_t p = 0;
    for (; p + kAtOnce <= count; p += kAtOnce) {
        // Rows lie apart by all heads, which no hardware foresees: the keys ahead, and the values that are
        // next.
        for (int i = 0; i < kAtOnce; ++i) {
            prefetch(keys.at(visible[std::min(p + i + kAhead, count - 1)]), s.dk);
            prefetch(values.at(visible[p + i]), s.dv);
        }
        score<R, kAtOnce>(keys, visible + p, scratch.q, s.dk, weights + p * kLanes);
    }
    for (; p < count; ++p) {
        score<R, 1>(keys, visible + p, scratch.q, s.dk, weights + p * kLanes);
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
    for (; d + kRegisters * Floats::kCount <= s.dv; d += kRegisters * Floats::kCount) {
        add_values<R, kRegisters>(values, visible, count, weights, d, out);
    }
    for (; d < s.dv; d += Floats::kCount) {
        add_values<R, 1>(values, visible, count, weights, d, out);
    }
}

/// whole becomes that of both; the order of calls is that of chunks.
void put_together(float* whole, const float* partial, int64_t dv) {
    const float largest = std::max(whole[0], partial[0]);
    const float a = std::exp(whole[0] - largest);
    const float b = std::exp(partial[0] - largest);
    whole[0] = largest;
    whole[1] = whole[1] * a + partial[1] * b;
    const Floats va = Floats::set(a);
    const Floats vb = Floats::set(b);
    for (int64_t d = 2; d < dv + 2; d += Floats::kCount) {
        (Floats::load(whole + d) * va).fma(Floats::load(partial + d), vb).store(whole + d);
    }
}

class Attention {
 public:
    Attention(const ggml_compute_params* params, ggml_tensor* dst)
        : params_(params), dst_(dst), s_(dst), scratch_(own_memory(params), s_) {
        std::memcpy(&scale_, dst->op_params, sizeof(scale_));
    }

    static size_t bytes(const Sizes& s, int threads) {
        size_t bytes = kCacheLine + static_cast<size_t>(threads) * Scratch::bytes(s);
        if (s.shares_blocks(threads)) {
            bytes += static_cast<size_t>(s.all_blocks() * s.most_chunks() * kMaxRows) * s.partial_floats() *
                     sizeof(float);
        }
        return bytes;
    }

    void run() {
        if (!s_.shares_blocks(params_->nth)) {
            for (int64_t b = share(s_.all_blocks(), 0); b < share(s_.all_blocks(), 1); ++b) {
                look(b);
                for (int64_t c = 0; c < chunks(); ++c) {
                    attend(b, c, c == 0 ? scratch_.whole : scratch_.partial);
                    for (int r = 0; c > 0 && r < rows(b); ++r) {
                        put_together(scratch_.whole[r], scratch_.partial[r], s_.dv);
                    }
                }
                for (int r = 0; r < rows(b); ++r) {
                    write(b, r, scratch_.whole[r]);
                }
            }
            return;
        }
        const int64_t items = s_.all_blocks() * s_.most_chunks();
        for (int64_t i = share(items, 0); i < share(items, 1); ++i) {
            // All heads of a chunk, then the next: rows of the cache hold all heads.
            const int64_t b = i % s_.all_blocks();
            const int64_t c = i / s_.all_blocks();
            look(b);
            if (c < chunks()) {
                float* partial[kMaxRows];
                for (int r = 0; r < kMaxRows; ++r) {
                    partial[r] = shared(b, c, r);
                }
                attend(b, c, partial);
            }
        }
        ggml_barrier(params_->threadpool);
        const int64_t all_rows = s_.all_blocks() * kMaxRows;
        for (int64_t i = share(all_rows, 0); i < share(all_rows, 1); ++i) {
            const int64_t b = i / kMaxRows;
            const int r = static_cast<int>(i % kMaxRows);
            if (r >= rows(b)) {
                continue;
            }
            look(b);
            float* whole = shared(b, 0, r);
            for (int64_t c = 1; c < chunks(); ++c) {
                put_together(whole, shared(b, c, r), s_.dv);
            }
            write(b, r, whole);
        }
    }

 private:
    char* own_memory(const ggml_compute_params* params) const {
        char* first = reinterpret_cast<char*>(align_up(reinterpret_cast<size_t>(params->wdata)));
        return first + static_cast<size_t>(params->ith) * Scratch::bytes(s_);
    }
    /// Behind all threads' own memory.
    float* shared(int64_t b, int64_t c, int r) const {
        char* first = reinterpret_cast<char*>(align_up(reinterpret_cast<size_t>(params_->wdata))) +
                      static_cast<size_t>(params_->nth) * Scratch::bytes(s_);
        return reinterpret_cast<float*>(first) +
               static_cast<size_t>((b * s_.most_chunks() + c) * kMaxRows + r) * s_.partial_floats();
    }
    int64_t share(int64_t count, int next) const { return count * (params_->ith + next) / params_->nth; }

    /// Blocks in the order stream, key head, part of its group, token: a head's cache is read by all tokens.
    int64_t token(int64_t b) const { return b % s_.tokens; }
    int64_t stream(int64_t b) const { return b / s_.tokens / s_.blocks; }
    int64_t parts() const { return s_.blocks / s_.kv_heads; }
    int64_t kv_head(int64_t b) const { return b / s_.tokens % s_.blocks / parts(); }
    int64_t first_in_group(int64_t b) const { return b / s_.tokens % parts() * kMaxRows; }
    int64_t head(int64_t b) const { return kv_head(b) * s_.group + first_in_group(b); }
    int rows(int64_t b) const {
        return static_cast<int>(std::min<int64_t>(kMaxRows, s_.group - first_in_group(b)));
    }

    /// Which positions a block's token sees, unless it is the last one that was asked for.
    void look(int64_t b) {
        const int64_t wanted = stream(b) * s_.tokens + token(b);
        if (wanted == looked_) {
            return;
        }
        looked_ = wanted;
        const ggml_tensor* mask = dst_->src[3];
        visible_ = 0;
        const uint16_t* row =
            mask == nullptr ? nullptr : row_at<uint16_t>(mask, token(b), 0, stream(b) % mask->ne[3]);
        for (int64_t p = 0; p < s_.positions; ++p) {
            const uint16_t bias = row == nullptr ? 0 : row[p];
            if (bias == kHidden) {
                continue;
            }
            scratch_.visible[visible_] = static_cast<int32_t>(p);
            scratch_.bias[visible_++] = bias == 0 ? 0.0f : ggml_fp16_to_fp32(bias);
        }
    }
    int64_t chunks() const { return (visible_ + chunk_of(visible_) - 1) / chunk_of(visible_); }

    Cache cache(const ggml_tensor* t, int64_t b) const {
        const int64_t stream_of_cache = stream(b) / (s_.streams / t->ne[3]);
        return {row_at<char>(t, 0, kv_head(b), stream_of_cache), t->nb[1]};
    }

    /// Chunk c of a block; look() knows the block's token.
    void attend(int64_t b, int64_t c, float* const* partial) {
        const ggml_tensor* q = dst_->src[0];
        if (loaded_ != b) {
            loaded_ = b;
            for (int r = 0; r < rows(b); ++r) {
                const auto* from = row_at<float>(q, token(b), head(b) + r, stream(b));
                for (int64_t d = 0; d < s_.dk; ++d) {
                    scratch_.q[r * s_.dk + d] = from[d] * scale_;
                }
            }
        }
        const int64_t first = c * chunk_of(visible_);
        const int64_t count = std::min(chunk_of(visible_), visible_ - first);
        constexpr void (*kernels[kMaxRows])(const Sizes&, const Cache&, const Cache&, const int32_t*,
                                            const float*, int64_t, const Scratch&, float* const*) = {
            attend_chunk<1>, attend_chunk<2>, attend_chunk<3>, attend_chunk<4>};
        kernels[rows(b) - 1](s_, cache(dst_->src[1], b), cache(dst_->src[2], b), scratch_.visible + first,
                             scratch_.bias + first, count, scratch_, partial);
    }

    /// A token that sees nothing gives zeros, as upstream.
    void write(int64_t b, int r, const float* whole) const {
        auto* out = row_at<float>(dst_, head(b) + r, token(b), stream(b));
        const float factor = visible_ == 0 || whole[1] == 0.0f ? 0.0f : 1.0f / whole[1];
        for (int64_t d = 0; d < s_.dv; ++d) {
            out[d] = visible_ == 0 ? 0.0f : whole[2 + d] * factor;
        }
    }

    const ggml_compute_params* params_;
    ggml_tensor* dst_;
    Sizes s_;
    Scratch scratch_;
    float scale_ = 1.0f;
    int64_t looked_ = -1;
    int64_t loaded_ = -1;
    int64_t visible_ = 0;
};

bool is_on() {
    static const bool on = [] {
        const char* asked = std::getenv("TRIT_ATTENTION");
        return asked == nullptr || std::strcmp(asked, "off") != 0;
    }();
    return on;
}

bool is_host(const ggml_tensor* t) {
    return t->buffer == nullptr || ggml_backend_buft_is_host(t->buffer->buft);
}

}  // namespace

bool can_attend(const ggml_tensor* op) {
    if (op->op != GGML_OP_FLASH_ATTN_EXT || !is_on()) {
        return false;
    }
    const ggml_tensor* q = op->src[0];
    const ggml_tensor* k = op->src[1];
    const ggml_tensor* v = op->src[2];
    const ggml_tensor* mask = op->src[3];
    float bias_and_cap[2];
    std::memcpy(bias_and_cap, op->op_params + 1, sizeof(bias_and_cap));
    return q->type == GGML_TYPE_F32 && k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16 &&
           op->type == GGML_TYPE_F32 && op->src[4] == nullptr && bias_and_cap[0] == 0.0f &&
           bias_and_cap[1] == 0.0f && q->ne[0] <= kMaxHead && v->ne[0] <= kMaxHead &&
           q->ne[0] % Floats::kCount == 0 && v->ne[0] % Floats::kCount == 0 && q->ne[2] % k->ne[2] == 0 &&
           k->ne[2] == v->ne[2] && k->ne[3] == v->ne[3] && q->ne[3] % k->ne[3] == 0 &&
           q->nb[0] == sizeof(float) && k->nb[0] == sizeof(ggml_fp16_t) && v->nb[0] == sizeof(ggml_fp16_t) &&
           (mask == nullptr || (mask->type == GGML_TYPE_F16 && mask->ne[2] == 1 &&
                                mask->nb[0] == sizeof(ggml_fp16_t) && is_host(mask))) &&
           is_host(q) && is_host(k) && is_host(v);
}

size_t attend_work_bytes(const ggml_tensor* op, int threads) { return Attention::bytes(Sizes(op), threads); }

void attend(const ggml_compute_params* params, ggml_tensor* dst) { Attention(params, dst).run(); }

}  // namespace trit

#else

namespace trit {

bool can_attend(const ggml_tensor*) { return false; }
size_t attend_work_bytes(const ggml_tensor*, int) { return 0; }
void attend(const ggml_compute_params*, ggml_tensor*) { GGML_ABORT("trit: no attention for this CPU"); }

}  // namespace trit

#endif
