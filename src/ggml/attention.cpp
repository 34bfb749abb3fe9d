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

#include "ggml/attention_memory.h"
#include "ggml/attention_rows.h"
#include "ggml/attention_tile.h"

namespace trit {
namespace {

constexpr uint16_t kHidden = 0xFC00;  ///< minus infinity in a mask

/// Of the next four positions of a mask.
bool all_hidden(const uint16_t* mask) {
    constexpr uint16_t kAll[4] = {kHidden, kHidden, kHidden, kHidden};
    return std::memcmp(mask, kAll, sizeof(kAll)) == 0;
}

/// A row's largest score and sum of exponentials become those of both; factors of what each has summed.
/// The order of calls is that of chunks.
void put_together(float* largest, float* sum, float other_largest, float other_sum, float* a, float* b) {
    const float most = std::max(*largest, other_largest);
    *a = *largest == most ? 1.0f : std::exp(*largest - most);
    *b = other_largest == most ? 1.0f : std::exp(other_largest - most);
    *largest = most;
    *sum = std::fma(*sum, *a, other_sum * *b);
}

/// The same with the sums of values behind both.
void put_together(float* whole, const float* partial, int64_t dv) {
    float a = 0.0f;
    float b = 0.0f;
    put_together(whole, whole + 1, partial[0], partial[1], &a, &b);
    const Floats va = Floats::set(a);
    const Floats vb = Floats::set(b);
    for (int64_t d = 2; d < dv + 2; d += Floats::kCount) {
        (Floats::load(whole + d) * va).fma(Floats::load(partial + d), vb).store(whole + d);
    }
}

/// Registers of AVX-512 where the chosen tier has them and values fill them: upstream's part, and so this
/// file, is compiled for AVX2.
const TileKernels& tiles_for([[maybe_unused]] int64_t dv) {
#ifdef TRIT_HAS_WIDE_FLOATS
    static const bool wide = std::strncmp(trit_tier_chosen()->features, "AVX-512", 7) == 0;
    if (wide && dv % avx512::kTiles.lanes == 0) {
        return avx512::kTiles;
    }
#endif
    return as_compiled::kTiles;
}

class Attention {
 public:
    Attention(const ggml_compute_params* params, ggml_tensor* dst)
        : params_(params), dst_(dst), s_(dst), scratch_(own_memory(params), s_), tiles_(tiles_for(s_.dv)) {
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
        if (s_.shares_blocks(params_->nth)) {
            share_chunks();
        } else if (s_.most_together() > 1) {
            share_tokens();
        } else {
            for (int64_t b = share(s_.all_blocks(), 0); b < share(s_.all_blocks(), 1); ++b) {
                attend_alone(b);
            }
        }
    }

 private:
    /// Few rows: each chunk is somebody's, and the sums meet behind a barrier.
    void share_chunks() {
        const int64_t items = s_.all_blocks() * s_.most_chunks();
        for (int64_t i = share(items, 0); i < share(items, 1); ++i) {
            // All heads of a chunk, then the next: rows of the cache hold all heads.
            const int64_t b = i % s_.all_blocks();
            const int64_t c = i / s_.all_blocks();
            look(stream(b), token(b));
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
            look(stream(b), token(b));
            float* whole = shared(b, 0, r);
            for (int64_t c = 1; c < chunks(); ++c) {
                put_together(whole, shared(b, c, r), s_.dv);
            }
            write(b, r, visible_, whole[1], whole + 2);
        }
    }

    /// Blocks of tokens with all heads, so that a token's mask is read once. Later tokens see more: threads
    /// take turns in one order, then in the other.
    void share_tokens() {
        const int64_t together = s_.together(params_->nth);
        const int64_t token_blocks = (s_.tokens + together - 1) / together;
        const int64_t items = s_.streams * token_blocks * s_.blocks;
        for (int64_t turn = 0; turn * params_->nth < items; ++turn) {
            const int64_t place = turn % 2 == 0 ? params_->ith : params_->nth - 1 - params_->ith;
            const int64_t i = turn * params_->nth + place;
            if (i < items) {
                const int64_t first = i / s_.blocks % token_blocks * together;
                const int64_t count = std::min(together, s_.tokens - first);
                attend_together(i / s_.blocks / token_blocks, i % s_.blocks, first, count);
            }
        }
    }

    void attend_alone(int64_t b) {
        look(stream(b), token(b));
        for (int64_t c = 0; c < chunks(); ++c) {
            attend(b, c, c == 0 ? scratch_.whole : scratch_.partial);
            for (int r = 0; c > 0 && r < rows(b); ++r) {
                put_together(scratch_.whole[r], scratch_.partial[r], s_.dv);
            }
        }
        for (int r = 0; r < rows(b); ++r) {
            write(b, r, visible_, scratch_.whole[r][1], scratch_.whole[r] + 2);
        }
    }

    /// Which positions some tokens see, unless they are the last ones that were asked for.
    void look_together(int64_t stream, int64_t first, int64_t count) {
        if (stream == listed_stream_ && first == listed_first_) {
            return;
        }
        listed_stream_ = stream;
        listed_first_ = first;
        listed_ = 0;
        for (int64_t t = count; t-- > 0;) {
            look(stream, first + t);
            if (listed_ == 0 && !biased_) {
                listed_ = visible_;
                std::copy(scratch_.visible, scratch_.visible + visible_, scratch_.listed);
            }
            const bool listed = !biased_ && visible_ <= listed_ && chunk_of(visible_) == chunk_of(listed_) &&
                                std::equal(scratch_.visible, scratch_.visible + visible_, scratch_.listed);
            scratch_.counts[t] = listed ? visible_ : -1;
        }
    }

    /// Heads of a block for `count` tokens: in tiles, but for tokens whose tile has one that sees others.
    void attend_together(int64_t stream, int64_t block, int64_t first, int64_t count) {
        look_together(stream, first, count);
        const int64_t b = (stream * s_.blocks + block) * s_.tokens + first;
        const int64_t tokens_of_tile = kTileRows / rows(b);
        Tile tiles[kMostTokens];
        int n_tiles = 0;
        for (int64_t t = 0; t < count; t += tokens_of_tile) {
            const Tile tile{t, std::min(t + tokens_of_tile, count)};
            const int64_t* counts = scratch_.counts;
            const bool listed =
                std::all_of(counts + tile.first, counts + tile.end, [](int64_t n) { return n >= 0; });
            if (listed && 2 * rows(b) * (tile.end - tile.first) >= kTileRows) {
                tiles[n_tiles++] = tile;
                continue;
            }
            for (int64_t i = tile.first; i < tile.end; ++i) {
                attend_alone(b + i);
            }
        }
        if (n_tiles > 0) {
            attend_tiles(b, tiles, n_tiles);
        }
    }

    /// Some of a block's tokens, counted from that of b on.
    struct Tile {
        int64_t first, end;
    };

    void attend_tiles(int64_t b, const Tile* tiles, int n_tiles) {
        for (int i = 0; i < n_tiles; ++i) {
            lay_out_queries(b, tiles[i], scratch_.tile_q + i * kTileRows * s_.dk);
        }
        const Cache keys = cache(dst_->src[1], b);
        const Cache values = cache(dst_->src[2], b);
        const Strips strips(s_.dv, rows(b), tiles_);
        const int64_t chunk = chunk_of(listed_);
        for (int64_t first = 0; first < listed_; first += chunk) {
            const int32_t* listed = scratch_.listed + first;
            const int64_t count = std::min(chunk, listed_ - first);
            convert_keys(keys, listed, count, s_.dk, scratch_.converted);
            for (int i = 0; i < n_tiles; ++i) {
                weigh(b, tiles[i], first, count, i * kTileRows);
            }
            convert_values(values, listed, count, s_.dv, strips, scratch_.converted);
            for (int i = 0; i < n_tiles; ++i) {
                add_tile(b, tiles[i], first, count, i * kTileRows, strips);
            }
        }
        for (int i = 0; i < n_tiles; ++i) {
            int64_t row = i * kTileRows;
            for (int64_t t = tiles[i].first; t < tiles[i].end; ++t) {
                for (int r = 0; r < rows(b); ++r, ++row) {
                    write(b + t, r, scratch_.counts[t], scratch_.sum[row],
                          scratch_.tile_values + row * s_.dv);
                }
            }
        }
    }

    void lay_out_queries(int64_t b, Tile tile, float* to) const {
        const int n_rows = rows(b);
        std::fill(to, to + kTileRows * s_.dk, 0.0f);
        int row = 0;
        for (int64_t t = tile.first; t < tile.end; ++t) {
            for (int r = 0; r < n_rows; ++r, ++row) {
                const auto* q = row_at<float>(dst_->src[0], token(b + t), head(b) + r, stream(b));
                lay_out_query(q, scale_, s_.dk, lane_order(n_rows), row, to);
            }
        }
    }

    /// How many of a chunk's positions a token of a tile sees.
    int64_t seen(int64_t t, int64_t first, int64_t count) const {
        return std::clamp<int64_t>(scratch_.counts[t] - first, 0, count);
    }

    /// Scores of a tile with converted keys become weights; the rows' factors for what they have summed.
    void weigh(int64_t b, Tile tile, int64_t first, int64_t count, int64_t row) {
        int64_t most = 0;
        for (int64_t t = tile.first; t < tile.end; ++t) {
            most = std::max(most, seen(t, first, count));
        }
        if (most == 0) {
            return;
        }
        const int n_rows = rows(b);
        float* weights = scratch_.tile_weights + row * chunk_of(listed_);
        tiles_.scores(scratch_.tile_q + row * s_.dk, scratch_.converted, most, s_.dk, lane_order(n_rows),
                      weights);
        int lane = 0;
        for (int64_t t = tile.first; t < tile.end; ++t, lane += n_rows) {
            for (int64_t p = seen(t, first, count); p < most; ++p) {
                std::fill_n(weights + p * kTileRows + lane, n_rows, -INFINITY);
            }
        }
        float largest[kTileRows];
        float sum[kTileRows];
        constexpr decltype(&tile_soften<1>) soften_rows[kMaxRows] = {tile_soften<1>, tile_soften<2>,
                                                                     tile_soften<3>, tile_soften<4>};
        soften_rows[n_rows - 1](weights, most, largest, sum);
        lane = 0;
        for (int64_t t = tile.first; t < tile.end; ++t) {
            const bool sees = seen(t, first, count) > 0;
            for (int r = 0; r < n_rows; ++r, ++lane) {
                const int64_t at = row + lane;
                if (sees && first == 0) {
                    scratch_.largest[at] = largest[lane];
                    scratch_.sum[at] = sum[lane];
                } else if (sees) {
                    put_together(scratch_.largest + at, scratch_.sum + at, largest[lane], sum[lane],
                                 scratch_.factors + at, scratch_.new_factors + at);
                }
            }
        }
    }

    void add_tile(int64_t b, Tile tile, int64_t first, int64_t count, int64_t row,
                  const Strips& strips) const {
        const int n_rows = rows(b);
        const auto kernel = tiles_.strip[n_rows - 1];
        const float* weights = scratch_.tile_weights + row * chunk_of(listed_);
        for (int64_t s = 0; s < strips.count; ++s) {
            const int64_t column = strips.first(s) * strips.lanes;
            const float* values = scratch_.converted + column * count;
            int64_t lane = 0;
            for (int64_t t = tile.first; t < tile.end; ++t, lane += n_rows) {
                const int64_t own = seen(t, first, count);
                if (own > 0) {
                    kernel(strips.width(s), values, weights + lane, own,
                           first == 0 ? nullptr : scratch_.factors + row + lane,
                           scratch_.new_factors + row + lane,
                           scratch_.tile_values + (row + lane) * s_.dv + column, s_.dv);
                }
            }
        }
    }

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

    /// Which positions a token sees, unless it is the last one that was asked for.
    void look(int64_t stream, int64_t token) {
        const int64_t wanted = stream * s_.tokens + token;
        if (wanted == looked_) {
            return;
        }
        looked_ = wanted;
        const ggml_tensor* mask = dst_->src[3];
        visible_ = 0;
        biased_ = false;
        const uint16_t* row =
            mask == nullptr ? nullptr : row_at<uint16_t>(mask, token, 0, stream % mask->ne[3]);
        for (int64_t p = 0; p < s_.positions; ++p) {
            if (row != nullptr && p + 4 <= s_.positions && all_hidden(row + p)) {
                p += 3;
                continue;
            }
            const uint16_t bias = row == nullptr ? 0 : row[p];
            if (bias == kHidden) {
                continue;
            }
            biased_ = biased_ || bias != 0;
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
        constexpr decltype(&attend_chunk<1>) kernels[kMaxRows] = {attend_chunk<1>, attend_chunk<2>,
                                                                  attend_chunk<3>, attend_chunk<4>};
        const RowsOfToken x{s_.dk,      s_.dv,           cache(dst_->src[1], b), cache(dst_->src[2], b),
                            scratch_.q, scratch_.weights};
        kernels[rows(b) - 1](x, scratch_.visible + first, scratch_.bias + first, count, partial);
    }

    /// A token that sees nothing gives zeros, as upstream.
    void write(int64_t b, int r, int64_t seen, float sum, const float* values) const {
        auto* out = row_at<float>(dst_, head(b) + r, token(b), stream(b));
        const float factor = seen == 0 || sum == 0.0f ? 0.0f : 1.0f / sum;
        for (int64_t d = 0; d < s_.dv; ++d) {
            out[d] = seen == 0 ? 0.0f : values[d] * factor;
        }
    }

    const ggml_compute_params* params_;
    ggml_tensor* dst_;
    Sizes s_;
    Scratch scratch_;
    const TileKernels& tiles_;
    float scale_ = 1.0f;
    int64_t looked_ = -1;
    int64_t loaded_ = -1;
    int64_t visible_ = 0;
    bool biased_ = false;  ///< the mask adds something
    int64_t listed_stream_ = -1;
    int64_t listed_first_ = -1;
    int64_t listed_ = 0;
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
