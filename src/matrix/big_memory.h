// SPDX-License-Identifier: MIT
/// Memory for packed weights, and what becomes of the file pages that they came from.
///
/// Packed weights are aligned to huge pages, which the system is asked for (fewer misses of the
/// address translation while weights stream by).
#ifndef TRIT_BIG_MEMORY_H
#define TRIT_BIG_MEMORY_H

#include <cstddef>

namespace trit {

/// `size` bytes of zeros, or nullptr.
void* alloc_big(size_t size);
void free_big(void* memory, size_t size);
/// Takes pages that nobody has written to, and nobody will, out of this process; at least, where it can.
void forget_unused(void* memory, size_t size);

/// If these bytes are mapped from a file, takes their pages out of this process (they stay in the system's
/// cache and come back if they are read), so that a model is not in memory twice. Else does nothing.
void forget_file_pages(const void* data, size_t size);

}  // namespace trit

#endif  // TRIT_BIG_MEMORY_H
