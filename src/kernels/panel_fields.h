// SPDX-License-Identifier: MIT
/// Panels straight from rows whose bytes hold four fields of two bits, without a byte for every code between.
#ifndef TRIT_PANEL_FIELDS_H
#define TRIT_PANEL_FIELDS_H

#include <cstddef>
#include <cstdint>

#include "trit.h"

namespace trit {

/// Where the codes of a row are: runs of 128 inputs in 32 bytes. Code 32 f + p of a run stands in byte p,
/// from bit shift[f] on.
struct FieldLayout {
    static constexpr int kInputs = 128;
    static constexpr int kBytes = 32;

    int runs;            ///< of a block; 0: the encoding has no such fields
    size_t block_bytes;  ///< from one block of runs to the next
    uint8_t shift[4];
};

/// Writes one whole panel, the bytes of trit_panel_pack.
///
/// @param tier     one that this CPU runs; the bytes are the same for all
/// @param packing  TRIT_PACKING_2_BITS or TRIT_PACKING_5_TRITS
/// @param k        a multiple of 128
/// @param row      the first of TRIT_PANEL_ROWS rows, row_bytes apart
/// @return whether no code is 3; else the panel is of no use
bool pack_fields(const trit_tier& tier, trit_packing packing, int64_t k, const FieldLayout& layout,
                 const uint8_t* row, size_t row_bytes, uint8_t* panel);

}  // namespace trit

#endif  // TRIT_PANEL_FIELDS_H
