// SPDX-License-Identifier: MIT
/// Look-up kernels from a shared library: those that trit/tune tries and the build does not have.
#ifndef TRIT_KERNEL_LIBRARY_H
#define TRIT_KERNEL_LIBRARY_H

#include <string>

namespace trit {

/// Adds the library's kernels (`trit_variants`, pointers that end with a null pointer) to those there are,
/// and keeps the library open. They are as untested as any others: trit_lookup_selftest comes before their
/// use. A file that is no such library ends the program.
void add_kernels(const std::string& path);

}  // namespace trit

#endif  // TRIT_KERNEL_LIBRARY_H
