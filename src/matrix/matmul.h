// SPDX-License-Identifier: MIT
/// One product of a stack of ternary matrices with tokens: which kernels run, the memory that they need, each
/// thread's share, and the run. The engine's matrix products and what `trit-tune` and `trit-bench` time are
/// this.
#ifndef TRIT_MATMUL_H
#define TRIT_MATMUL_H

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "matrix/activations.h"
#include "matrix/encodings.h"
#include "matrix/lookup_choice.h"
#include "matrix/lookup_plan.h"
#include "matrix/packed_matrix.h"
#include "trit.h"

namespace trit {

/// How weights lie in memory.
enum class Storage {
    kPanels,  ///< a PackedMatrix
    kI2S,     ///< rows of i2_s, which tiers read in place
    kRows,    ///< rows of another encoding, unpacked anew for every product
};

/// How products with a matrix are computed.
struct Method {
    Storage storage = Storage::kPanels;
    trit_packing packing = TRIT_PACKING_2_BITS;  ///< of panels of one scale
    LookupChoice few;                            ///< of panels of table indices: the kernel that reads them
    LookupChoice many;  ///< tables over tokens, for panels of 2 bits and what is made of indices
    int at_once = 0;    ///< tokens of one call of the tier's kernels for panels, at most; 0: all

    /// What the engine does with weights of this encoding, stored so.
    static Method chosen(const trit_tier& tier, const Encoding& encoding, const Shape& shape, Storage storage,
                         int threads);
};

/// One matrix of a stack, stored as the method says.
struct Weights {
    /// Of Storage::kPanels.
    static Weights panels(const PackedMatrix& packed, int64_t i) {
        Weights w;
        w.packed = &packed;
        w.i = i;
        return w;
    }
    /// The other two: rows of an encoding, row_bytes apart.
    static Weights rows(const Encoding& encoding, const uint8_t* data, size_t row_bytes, float scale) {
        Weights w;
        w.encoding = &encoding;
        w.data = data;
        w.row_bytes = row_bytes;
        w.scale = scale;
        return w;
    }

    const PackedMatrix* packed = nullptr;
    int64_t i = 0;
    const Encoding* encoding = nullptr;
    const uint8_t* data = nullptr;
    size_t row_bytes = 0;
    float scale = 0.0f;
};

/// A thread's share of panels times chunks of tokens, in the order of panels: the chunks of panel `first`
/// from `first_chunk` on, all of the panels behind it, and those of panel `last` before `last_chunk`.
struct PanelShare {
    PanelShare(int64_t panels, int chunks, int thread, int threads);

    int64_t first;
    int first_chunk;
    int64_t last;
    int last_chunk;
};

/// The plan is made of what is known before the data are: memory is enough whatever they turn out to be.
class Matmul {
 public:
    /// @param m  most tokens of one matrix, 1 or more
    Matmul(const trit_tier& tier, const Method& method, const Shape& shape, int64_t m, int threads);

    const Method& method() const { return method_; }
    /// Tokens that the tier's kernels take at once.
    int block() const { return block_; }
    /// What goes through tables over tokens if the data allow it.
    const LookupPlan& tables() const { return tables_; }

    /// Each thread's own memory, a multiple of 64.
    size_t scratch_bytes() const;
    /// All threads' memory, a multiple of 64.
    size_t shared_bytes() const;

    /// A thread's rows in place: contiguous, so that each reads one linear stream, and whole tiles.
    void share(int thread, int64_t* first, int64_t* last) const;
    /// Chunks of m tokens: where there are many, threads share a panel by its tokens.
    static int chunks_of(int m) { return std::clamp(m / kChunkTokens, 1, kMostChunks); }
    /// A thread's work with m tokens that no tables take: weights times tokens.
    int64_t work(int thread, int64_t m) const;

    /// Whether `unpack` and a barrier of all threads must come before `run`, which then takes what is at
    /// `shared`.
    bool must_unpack(const PackedMatrix& w) const {
        return tables_.tokens() > 0 && w.has_tables() && w.packing() != TRIT_PACKING_2_BITS;
    }
    /// A thread's share of it.
    ///
    /// @param shared  shared_bytes() bytes, aligned to 64
    void unpack(const PackedMatrix& w, int thread, void* shared) const;

    /// A thread's share of one matrix times m tokens.
    ///
    /// @param token    row of act that holds the first of them
    /// @param m        as in the constructor; any number up to it where nothing goes through tables
    /// @param scratch  this thread's own scratch_bytes() bytes, aligned to 64
    /// @param row_of   row_of(j): where token j's results go, float [n]
    template <typename RowOf>
    void run(const Weights& w, const Activations& act, int64_t token, int64_t m, int thread, void* scratch,
             const RowOf& row_of) const {
        const bool has_tables = w.packed != nullptr && w.packed->has_tables();
        const int64_t looked_up = has_tables ? tables_.tokens() : 0;
        if (looked_up > 0) {
            tables_.run(tier_, w.packed->matrix(w.i), act, token, thread, threads_, scratch, row_of);
        }
        float* out[kMostBlockTokens];
        each_block(m - looked_up, [&](int64_t t, int count) {
            for (int j = 0; j < count; ++j) {
                out[j] = row_of(looked_up + t + j);
            }
            multiply(w, act, token + looked_up + t, count, thread, scratch, out);
        });
    }

 private:
    static constexpr int64_t kMostBlockTokens = 240;  // a multiple of every tier's tile

    /// Enough for a kernel's tile, and for unpacking a panel to be worth it.
    static constexpr int kChunkTokens = 16;
    static constexpr int kMostChunks = 16;

    static int block_of(int64_t k, int64_t m);
    /// Blocks of nearly the same size: work(first, count).
    template <typename Work>
    void each_block(int64_t m, const Work& work) const {
        const int64_t blocks = (m + block_ - 1) / block_;
        for (int64_t b = 0; b < blocks; ++b) {
            work(m * b / blocks, static_cast<int>(m * (b + 1) / blocks - m * b / blocks));
        }
    }
    /// By the tier's kernels, and those that read table indices.
    void multiply(const Weights& w, const Activations& act, int64_t token, int m, int thread, void* scratch,
                  float* const* out) const;

    const trit_tier& tier_;
    Method method_;
    Shape shape_;
    int threads_;
    int block_;
    LookupPlan tables_;
};

}  // namespace trit

#endif  // TRIT_MATMUL_H
