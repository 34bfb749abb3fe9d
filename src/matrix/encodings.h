// SPDX-License-Identifier: MIT
/// The ternary encodings that files hold, as one thing: rows of codes u = t + 1 and their scales.
///
/// The same rows as in trit/gguf/encoding_table.py; CONTRIBUTING.md lists the places of a new one.
#ifndef TRIT_ENCODINGS_H
#define TRIT_ENCODINGS_H

#include <cstddef>
#include <cstdint>

#include "kernels/panel_fields.h"

namespace trit {

struct Encoding {
    const char* name;    ///< as in GGUF files' type names
    int block;           ///< weights per block; k is a multiple
    size_t block_bytes;  ///< bytes per block, the scale included
    int scale_at;        ///< byte of a block where its half-precision scale is; -1: one float32 for the whole
                         ///< tensor, behind its codes
    size_t tail_bytes;   ///< bytes behind the codes of a tensor; the scale is in the first four
    bool has_code_3;     ///< +2 is a legal weight
    /// k weights of a row, whole blocks, to codes, uint8 [k]. What stands for no weight becomes code 3.
    void (*unpack)(int64_t k, const uint8_t* row, uint8_t* codes);
    FieldLayout fields{};     ///< where the codes are, if a byte has four of them as fields of two bits
    bool only_signs = false;  ///< no weight is 0: codes 0 and 2

    /// Weights that share a scale; 0: all.
    int64_t group() const { return scale_at < 0 ? 0 : block; }
    size_t row_bytes(int64_t k) const { return static_cast<size_t>(k / block) * block_bytes; }
    /// The one scale of a tensor of that many weights.
    float tensor_scale(const uint8_t* data, int64_t weights) const;
    /// Scale of a block, as half precision.
    uint16_t scale(const uint8_t* row, int64_t block_index) const;
};

/// The encoding of that name; nullptr if there is none.
const Encoding* find_encoding(const char* name);

}  // namespace trit

#endif  // TRIT_ENCODINGS_H
