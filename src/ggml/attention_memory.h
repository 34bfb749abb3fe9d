// SPDX-License-Identifier: MIT
/// How an attention is cut into pieces, and what memory a thread has for them.
#ifndef TRIT_GGML_ATTENTION_MEMORY_H
#define TRIT_GGML_ATTENTION_MEMORY_H

#include <algorithm>
#include <cstdint>

#include "ggml.h"
#include "ggml/attention_rows.h"
#include "ggml/attention_tile.h"
#include "ggml/floats.h"
#include "kernels/align.h"

namespace trit {

constexpr int kChunk = 64;       ///< positions; chunks are multiples of it
constexpr int64_t kChunks = 32;  ///< most chunks of a token
constexpr int64_t kMaxHead = 512;
/// With so many blocks of rows for each thread, no block is shared out.
constexpr int64_t kBlocksPerThread = 4;
constexpr int64_t kMostTokens = 64;   ///< that a thread takes together
constexpr int64_t kTogether = 16384;  ///< most of them, times the positions of a chunk

inline int64_t chunk_of(int64_t positions) {
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

    /// Tokens that fill a tile.
    int64_t least_together() const { return kTileRows / lanes(rows()); }
    /// Most tokens that a thread takes together; 1: each is alone.
    int64_t most_together() const {
        if (tokens < least_together()) {
            return 1;
        }
        int64_t most = kMostTokens;
        while (most > least_together() && most * chunk_of(positions) > kTogether) {
            most /= 2;
        }
        return most;
    }
    /// The same for so many threads, each of which wants something to do.
    int64_t together(int threads) const {
        int64_t most = most_together();
        while (most > least_together() &&
               streams * ((tokens + most - 1) / most) * blocks < kBlocksPerThread * threads) {
            most /= 2;
        }
        return most;
    }
    int64_t most_tiles() const { return (most_together() * lanes(rows()) + kTileRows - 1) / kTileRows; }

 private:
    int rows() const { return static_cast<int>(std::min<int64_t>(kMaxRows, group)); }
};

/// Hands out aligned pieces of a memory; from null on it only counts their bytes.
class Pieces {
 public:
    explicit Pieces(char* memory) : memory_(memory) {}
    template <typename T>
    T* take(int64_t count) {
        char* first = memory_ == nullptr ? nullptr : memory_ + used_;
        used_ += align_up(static_cast<size_t>(count) * sizeof(T));
        return reinterpret_cast<T*>(first);
    }
    size_t used() const { return used_; }

 private:
    char* memory_;
    size_t used_ = 0;
};

/// A thread's own memory.
struct Scratch {
    int32_t* visible;  ///< positions that the mask leaves
    float* bias;       ///< what it adds there
    float* q;          ///< [kMaxRows][dk], scaled
    float* weights;    ///< [positions of a chunk][rows]
    float* partial[kMaxRows];
    float* whole[kMaxRows];

    // Of tokens together, by tiles of kTileRows rows:
    int32_t* listed;      ///< positions that the last of them sees
    int64_t* counts;      ///< [tokens] how many of those a token sees; -1: it sees others
    float* tile_q;        ///< [tiles][dk][kTileRows]
    float* converted;     ///< a chunk's keys, then its values
    float* tile_weights;  ///< [tiles][positions of a chunk][kTileRows]
    float* tile_values;   ///< [tiles][kTileRows][dv]
    // [tiles][kTileRows]:
    float *largest, *sum, *factors, *new_factors;

    Scratch(char* memory, const Sizes& s) {
        Pieces pieces(memory);
        lay_out(pieces, s);
    }
    static size_t bytes(const Sizes& s) {
        Pieces pieces(nullptr);
        Scratch(nullptr, s).lay_out(pieces, s);
        return pieces.used();
    }

 private:
    void lay_out(Pieces& pieces, const Sizes& s) {
        const int64_t chunk = chunk_of(s.positions);
        visible = pieces.take<int32_t>(s.positions);
        bias = pieces.take<float>(s.positions);
        q = pieces.take<float>(kMaxRows * s.dk);
        weights = pieces.take<float>(kMaxRows * chunk + Floats::kCount);
        for (int r = 0; r < kMaxRows; ++r) {
            partial[r] = pieces.take<float>(static_cast<int64_t>(s.partial_floats()));
            whole[r] = pieces.take<float>(static_cast<int64_t>(s.partial_floats()));
        }
        if (s.most_together() > 1) {
            const int64_t rows = s.most_tiles() * kTileRows;
            listed = pieces.take<int32_t>(s.positions);
            counts = pieces.take<int64_t>(s.most_together());
            tile_q = pieces.take<float>(rows * s.dk);
            converted = pieces.take<float>(chunk * std::max(s.dk, s.dv));
            tile_weights = pieces.take<float>(rows * chunk);
            tile_values = pieces.take<float>(rows * s.dv);
            for (float** of_rows : {&largest, &sum, &factors, &new_factors}) {
                *of_rows = pieces.take<float>(rows);
            }
        }
    }
};

}  // namespace trit

#endif  // TRIT_GGML_ATTENTION_MEMORY_H
