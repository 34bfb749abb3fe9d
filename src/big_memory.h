// SPDX-License-Identifier: MIT
/// Memory for packed weights: aligned to huge pages, which the system is asked for (fewer misses of the
/// address translation while weights stream by).
#ifndef TRIT_BIG_MEMORY_H
#define TRIT_BIG_MEMORY_H

#include <cstddef>

namespace trit {

/// `size` bytes of zeros, or nullptr.
void* alloc_big(size_t size);
void free_big(void* memory, size_t size);

}  // namespace trit

#endif  // TRIT_BIG_MEMORY_H
