// SPDX-License-Identifier: MIT
/// What was found by measuring on this machine: which packing and kernel a matrix of a shape uses.
#ifndef TRIT_TUNING_H
#define TRIT_TUNING_H

#include <cstdint>
#include <vector>

#include "matrix/lookup_choice.h"

namespace trit {

struct TunedShape {
    int64_t n;
    int64_t k;
    int threads;
    LookupChoice lookup;
    trit_packing packing = TRIT_PACKING_COUNT;  ///< TRIT_PACKING_COUNT: as without tuning
};

/// Adds what is answered from, in front of what was added before: the presets, then this machine's own. To be
/// called before any matrix is packed, if at all.
void add_tuning(std::vector<TunedShape> shapes);

/// For a matrix of n rows and k inputs: what was found for this shape and number of threads; else for the
/// nearest one that is not far off (shape first), of what was added last, else of what was added before;
/// without any, or where TRIT_LOOKUP is set, what trit_lookup_chosen says.
LookupChoice lookup_choice(int64_t n, int64_t k, int threads);

/// Most tokens that the tier's kernel for panels of this packing gets in one call; 0: all. Its kernels for
/// few tokens decode weights beside products, those for many do it before; which is faster depends on the
/// CPU. Panels of table indices become such of 2 bits.
int tokens_at_once(trit_packing packing);
/// As with add_tuning: what was said last counts.
void set_tokens_at_once(trit_packing packing, int tokens);

/// The packing for such a matrix; TRIT_PACKING_COUNT if nothing was found. A matrix is packed before anybody
/// says on how many threads it will be used: of several numbers, what was found for the most counts.
trit_packing tuned_packing(int64_t n, int64_t k);

}  // namespace trit

#endif  // TRIT_TUNING_H
