// SPDX-License-Identifier: MIT
#ifndef TRIT_PACKING_NAMES_H
#define TRIT_PACKING_NAMES_H

#include "trit.h"

namespace trit {

/// Name of a packing in output, flags and TRIT_PACKING.
inline const char* packing_name(trit_packing packing) {
    constexpr const char* kNames[TRIT_PACKING_COUNT] = {"2_bits", "5_trits", "1_bit", "tl1", "tl2"};
    return kNames[packing];
}

/// Whether it holds any ternary matrix, so that it can be asked for; 1_bit has no room for zeros.
inline bool is_ternary(trit_packing packing) { return packing != TRIT_PACKING_1_BIT; }

}  // namespace trit

#endif  // TRIT_PACKING_NAMES_H
