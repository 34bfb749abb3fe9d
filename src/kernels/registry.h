// SPDX-License-Identifier: MIT
/// Which look-up kernels there are (the functions trit_lookup_* of trit.h), and whether they work.
#ifndef TRIT_REGISTRY_H
#define TRIT_REGISTRY_H

#include <string>

#include "trit.h"

namespace trit {

/// What is wrong with a kernel: its self-test, run once in a process (a tuning names each kernel for many
/// shapes); empty if nothing is.
const std::string& lookup_fault(const trit_lookup_kernel* kernel);

/// Whether the tier, or a look-up kernel that works here, has code for panels of a packing.
bool is_readable(const trit_tier& tier, trit_packing packing);

}  // namespace trit

#endif  // TRIT_REGISTRY_H
