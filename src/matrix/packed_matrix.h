// SPDX-License-Identifier: MIT
/// A stack of ternary matrices as panels in one block of memory: a header, the matrices' scales if each has
/// its own, then the panels.
///
///     panels of one scale for the tensor, or one for each matrix:   codes of all k inputs
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

/// One matrix, as panels.
struct Panels {
    int64_t k;
    int64_t n;
    const uint8_t* data;
    size_t panel_bytes;
    float scale;
};

class PackedMatrix {
 public:
    struct Header {
        int64_t k;
        int64_t n;
        int64_t group;
        int64_t packing;
        int64_t panel_bytes;
        int64_t has_code_3;    ///< whether some weight is +2
        int64_t scales_bytes;  ///< of the matrices' float32 scales behind the header; 0: none has its own
        float scale;           ///< of all matrices, if they have one in common
    };
    /// The header has its own cache line.
    static constexpr size_t kHeaderBytes = 64;
    /// In front of the codes of a panel's group of inputs.
    static constexpr size_t kScalesBytes = TRIT_PANEL_ROWS * sizeof(uint16_t);
    /// Smaller groups become one of this many inputs where neighbours have the same scales.
    static constexpr int64_t kGroup = 128;

    /// Of one panel, with scales for groups of inputs if group is not 0; the last group may be smaller.
    static size_t panel_bytes(trit_packing packing, int64_t k, int64_t group);
    /// Whether a tier has what a matrix of this encoding needs.
    static bool possible(const trit_tier& tier, const Encoding& encoding, const Shape& shape);
    /// How a matrix without groups is packed: as TRIT_PACKING asks; else as was found for its shape by
    /// measuring (tuning.h); else five trits per byte where the tier reads them: a token then reads 20 %
    /// less. Data with a code 3 get two bits instead.
    static trit_packing packing_for(const trit_tier& tier, const Encoding& encoding, const Shape& shape);
    /// The same for a matrix with a scale for each group of so many inputs.
    static trit_packing packing_for(const trit_tier& tier, const Encoding& encoding, int64_t group);
    /// Bytes to give to `pack`, a multiple of 64: the largest of the layouts that the data may ask for.
    static size_t bytes(const trit_tier& tier, const Encoding& encoding, const Shape& shape);
    /// Packs on `threads` threads. A tensor whose scales are all the same gets one scale, and a stack whose
    /// matrices have one each gets those: it was made by training with them, and its activations are then
    /// quantised once per token, as in training. Else there are groups of inputs: of kGroup where blocks of
    /// half of it come in pairs of one scale, else the encoding's blocks. Scales that differ from row to row
    /// are groups, too: nothing says that training quantised whole tokens, which outliers would spoil.
    ///
    /// @param data    the encoding's bytes, rows one after the other; n * count rows
    /// @param memory  bytes(tier, encoding, shape) bytes, aligned to 64
    /// @return nullptr, or what is wrong with the data ("holds ...")
    static const char* pack(const trit_tier& tier, const Encoding& encoding, const Shape& shape,
                            const uint8_t* data, int threads, void* memory);

    /// Bytes of a stack without groups as panels of 2 bits.
    static size_t two_bits_bytes(const Shape& shape);

    /// What `pack` wrote, looked at only once it is used: nullptr is a matrix that nobody asks.
    explicit PackedMatrix(const void* memory);
    /// The same with the header elsewhere, of one scale or groups.
    PackedMatrix(const Header* header, const uint8_t* panels) : header_(header), panels_(panels) {}
    /// How many bytes `pack` wrote for a stack of `count` matrices.
    size_t used_bytes(int64_t count) const;

    const Header& header() const { return *header_; }
    /// 0: activations are quantised per token; else per group of this many.
    int64_t group() const { return header_->group; }
    trit_packing packing() const { return static_cast<trit_packing>(header_->packing); }
    int64_t panels() const { return (header_->n + TRIT_PANEL_ROWS - 1) / TRIT_PANEL_ROWS; }

    /// Whether panels of such a packing are of 2 bits, or indices of which those are made.
    static bool may_have_tables(trit_packing packing) {
        return packing != TRIT_PACKING_5_TRITS && packing != TRIT_PACKING_1_BIT;
    }
    /// Whether kernels that look up sums over tokens may read the panels, or those of 2 bits made of them.
    bool has_tables() const {
        return header_->group == 0 && may_have_tables(packing()) && header_->has_code_3 == 0;
    }
    /// Matrix i, with its scale if it has no groups.
    Panels matrix(int64_t i) const {
        return {header_->k, header_->n, panels_ + header_->scales_bytes + i * panels() * header_->panel_bytes,
                static_cast<size_t>(header_->panel_bytes),
                header_->scales_bytes != 0 ? scales()[i] : header_->scale};
    }
    /// Float [count], if each matrix has its own.
    const float* scales() const {
        return reinterpret_cast<const float*>(reinterpret_cast<const uint8_t*>(header_) + kHeaderBytes);
    }

 private:
    const Header* header_;
    const uint8_t* panels_;  ///< behind scales() if there are any
};

}  // namespace trit

#endif  // TRIT_PACKED_MATRIX_H
