// SPDX-License-Identifier: MIT
/// A stack of ternary matrices as panels in one block of memory: a header, then the panels.
///
///     panels of one scale for the tensor, or one for each row:   codes of all k inputs
///     panels of grouped scales:   for each group of inputs: 64 half-precision scales, then the group's codes
///
/// Nothing here knows the engine.
#ifndef TRIT_PACKED_MATRIX_H
#define TRIT_PACKED_MATRIX_H

#include "matrix/encodings.h"
#include "trit.h"

namespace trit {

/// Size of a stack of matrices.
struct Shape {
    int64_t k;
    int64_t n;
    int64_t count;  ///< matrices
};

/// One matrix of one scale, as panels.
struct Panels {
    int64_t k;
    int64_t n;
    const uint8_t* data;
    size_t panel_bytes;
    float scale;
};

/// One token's sums of weights -1, 0, +1 to results: rows of panels p ... p + count - 1, at out + 64 p.
///
/// @param sums  int32 [64 count]
/// @param out   float [w.n]
void finish_panels(const trit_tier& tier, const Panels& w, int64_t p, int count, const int32_t* sums,
                   float act_scale, float* out);

class PackedMatrix {
 public:
    /// Whether a tier has what a matrix of this encoding needs.
    static bool possible(const trit_tier& tier, const Encoding& encoding, const Shape& shape);
    /// How a matrix of one scale is packed: as TRIT_PACKING asks; else as was found for its shape by
    /// measuring (tuning.h); else five trits per byte where the tier reads them: a token then reads 20 %
    /// less. Two bits if a code may be 3.
    static trit_packing packing_for(const trit_tier& tier, const Encoding& encoding, const Shape& shape);
    /// Bytes to give to `pack`, a multiple of 64: the largest of the layouts that the data may ask for.
    static size_t bytes(const trit_tier& tier, const Encoding& encoding, const Shape& shape);
    /// Packs on `threads` threads. A tensor whose scales are all the same gets one scale; it was made by
    /// training with one, and its activations are then quantised once per token, as in training.
    ///
    /// @param data    the encoding's bytes, rows one after the other; n * count rows
    /// @param memory  bytes(tier, encoding, shape) bytes, aligned to 64
    /// @return nullptr, or what is wrong with the data ("holds ...")
    static const char* pack(const trit_tier& tier, const Encoding& encoding, const Shape& shape,
                            const uint8_t* data, int threads, void* memory);

    explicit PackedMatrix(const void* memory);

    /// 0: activations are quantised per token; else per group of this many.
    int64_t group() const { return header_->group; }
    trit_packing packing() const { return static_cast<trit_packing>(header_->packing); }
    int64_t panels() const { return (header_->n + TRIT_PANEL_ROWS - 1) / TRIT_PANEL_ROWS; }

    /// Rows of panels `first` to `last` (exclusive) of matrix `i` times m tokens.
    ///
    /// @param q        int8 [m, k] (q_row_bytes apart)
    /// @param scale    float [m, groups] (one group if group() is 0): s of trit_quantize_fn
    /// @param sum      int32 [m, groups]
    /// @param scratch  scratch_bytes(k, m) bytes, aligned to 64
    /// @param out      out[j]: token j's results, float [n], of which these panels' rows are written
    void multiply(const trit_tier& tier, int64_t i, int64_t first, int64_t last, const int8_t* q,
                  size_t q_row_bytes, const float* scale, const int32_t* sum, int m, void* scratch,
                  float* const* out) const;
    /// Enough for up to m tokens and any matrix of k inputs in this packing.
    static size_t scratch_bytes(int64_t k, int m, trit_packing packing);

    /// With so many tokens and more, panels of table indices are worth less than panels of 2 bits made of
    /// them.
    static constexpr int kLeastUnpacked = 6;
    /// Bytes that `unpack` writes for a stack of this shape.
    static size_t unpacked_bytes(const Shape& shape);
    /// A thread's share of writing a stack of table indices as one of 2 bits, for all threads' use.
    ///
    /// @param memory  unpacked_bytes(shape) bytes, aligned to 64, for the constructor
    void unpack(int64_t count, int thread, int threads, void* memory) const;

    /// Whether kernels that look up sums over tokens may read the panels, or those that `unpack` makes.
    bool has_tables() const {
        return header_->group == 0 && header_->packing != TRIT_PACKING_5_TRITS && header_->has_code_3 == 0;
    }
    /// Matrix i, of one scale.
    Panels matrix(int64_t i) const {
        return {header_->k, header_->n, panels_ + i * panels() * header_->panel_bytes,
                static_cast<size_t>(header_->panel_bytes), header_->scale};
    }

    struct Header {
        int64_t k;
        int64_t n;
        int64_t group;
        int64_t packing;
        int64_t panel_bytes;
        int64_t has_code_3;  ///< whether some weight is +2
        float scale;
    };

 private:
    void unpack_panel(const uint8_t* panel, uint8_t* out) const;
    /// Few tokens times `count` panels from p on, by the kernel that reads their indices.
    void look_up(const trit_lookup_kernel& kernel, const trit_tier& tier, int64_t i, int64_t p, int count,
                 const int8_t* q, size_t q_row_bytes, const float* scale, int m, void* scratch,
                 float* const* out) const;
    void multiply_panel(const trit_tier& tier, int64_t i, int64_t p, const int8_t* q, size_t q_row_bytes,
                        const float* scale, const int32_t* sum, int m, void* scratch,
                        float* const* out) const;

    const Header* header_;
    const uint8_t* panels_;
};

}  // namespace trit

#endif  // TRIT_PACKED_MATRIX_H
