// SPDX-License-Identifier: MIT
/// Which CPU this is: what was measured on one is used on those that are like it.
#ifndef TRIT_CPU_IDENTITY_H
#define TRIT_CPU_IDENTITY_H

#include <map>
#include <string>
#include <vector>

namespace trit {

/// What a core says of itself, as Linux writes it: "vendor" ("AuthenticAMD"), "family" ("25") and "model"
/// ("1") of x86; "implementer" ("0x41") and "part" ("0xd0c") of ARM; "name" ("Apple M2") on macOS for ARM.
using CpuCore = std::map<std::string, std::string>;

/// The kinds of cores of this machine, at least one; a core without members where nothing is known.
std::vector<CpuCore> cpu_cores();

}  // namespace trit

#endif  // TRIT_CPU_IDENTITY_H
