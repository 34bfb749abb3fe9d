// SPDX-License-Identifier: MIT
#include "big_memory.h"

#include <cstdint>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <sys/mman.h>
#endif

namespace trit {

#if defined(_WIN32)

// Large pages need a privilege that users lack; 64 KB allocations are aligned well enough for the kernels.
void* alloc_big(size_t size) { return VirtualAlloc(nullptr, size, MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE); }
void free_big(void* memory, size_t) { VirtualFree(memory, 0, MEM_RELEASE); }

#else

namespace {
constexpr size_t kHugePage = size_t{2} << 20;
size_t whole_pages(size_t size) { return (size + kHugePage - 1) / kHugePage * kHugePage; }
}  // namespace

void* alloc_big(size_t size) {
    const size_t wanted = whole_pages(size);
    void* area =
        mmap(nullptr, wanted + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) {
        return nullptr;
    }
    // Give back what is before the first and behind the last huge page.
    auto* start = static_cast<uint8_t*>(area);
    const size_t before = (kHugePage - reinterpret_cast<uintptr_t>(start) % kHugePage) % kHugePage;
    if (before > 0) {
        munmap(start, before);
    }
    if (before < kHugePage) {
        munmap(start + before + wanted, kHugePage - before);
    }
#if defined(MADV_HUGEPAGE)
    madvise(start + before, wanted, MADV_HUGEPAGE);
#endif
    return start + before;
}

void free_big(void* memory, size_t size) { munmap(memory, whole_pages(size)); }

#endif

}  // namespace trit
