// SPDX-License-Identifier: MIT
#include "matrix/big_memory.h"

#include <cstdint>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <cstdio>

namespace trit {

#if defined(_WIN32)

// Large pages need a privilege that users lack; 64 KB allocations are aligned well enough for the kernels.
void* alloc_big(size_t size) { return VirtualAlloc(nullptr, size, MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE); }
void free_big(void* memory, size_t) { VirtualFree(memory, 0, MEM_RELEASE); }
void forget_unused(void*, size_t) {}
void forget_file_pages(const void*, size_t) {}

#else

namespace {
constexpr size_t kHugePage = size_t{2} << 20;
size_t whole_pages(size_t size) { return (size + kHugePage - 1) / kHugePage * kHugePage; }

/// The whole pages of some bytes: their neighbours belong to other tensors.
struct Pages {
    Pages(const void* data, size_t size) {
        const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
        first = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
        last = (reinterpret_cast<uintptr_t>(data) + size) / page * page;
    }
    void forget() const {
        if (first < last) {
            madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
        }
    }
    uintptr_t first;
    uintptr_t last;
};
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
void forget_unused(void* memory, size_t size) { Pages(memory, size).forget(); }

#if defined(__linux__)

namespace {

/// Whether [first, last) lies in one mapping of a file that this process cannot write to: of other memory the
/// call below would destroy the contents.
bool read_only_file(uintptr_t first, uintptr_t last) {
    std::FILE* maps = std::fopen("/proc/self/maps", "r");
    if (maps == nullptr) {
        return false;
    }
    bool found = false;
    char line[512];
    while (!found && std::fgets(line, sizeof(line), maps) != nullptr) {
        unsigned long long from = 0;
        unsigned long long to = 0;
        unsigned long long inode = 0;
        char access[5] = "";
        if (std::sscanf(line, "%llx-%llx %4s %*x %*s %llu", &from, &to, access, &inode) == 4) {
            found = from <= first && last <= to && inode != 0 && access[0] == 'r' && access[1] == '-';
        }
    }
    std::fclose(maps);
    return found;
}

}  // namespace

void forget_file_pages(const void* data, size_t size) {
    const Pages pages(data, size);
    if (read_only_file(pages.first, pages.last)) {
        pages.forget();
    }
}

#else

void forget_file_pages(const void*, size_t) {}

#endif

#endif

}  // namespace trit
