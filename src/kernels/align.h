// SPDX-License-Identifier: MIT
#ifndef TRIT_ALIGN_H
#define TRIT_ALIGN_H

#include <cstddef>

namespace trit {

constexpr size_t kCacheLine = 64;

/// The next multiple of a cache line.
inline size_t align_up(size_t size) { return (size + kCacheLine - 1) / kCacheLine * kCacheLine; }

}  // namespace trit

#endif  // TRIT_ALIGN_H
