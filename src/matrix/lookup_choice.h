// SPDX-License-Identifier: MIT
#ifndef TRIT_LOOKUP_CHOICE_H
#define TRIT_LOOKUP_CHOICE_H

#include "trit.h"

namespace trit {

/// A look-up kernel, and how it is used.
struct LookupChoice {
    const trit_lookup_kernel* kernel = nullptr;  ///< null: none
    int panels = 0;                              ///< of one call, at most the kernel's
    int least_tokens = 0;

    /// As the kernel's file says.
    static LookupChoice of(const trit_lookup_kernel* kernel) {
        return kernel != nullptr ? LookupChoice{kernel, kernel->panels, kernel->least_tokens}
                                 : LookupChoice{};
    }
};

}  // namespace trit

#endif  // TRIT_LOOKUP_CHOICE_H
