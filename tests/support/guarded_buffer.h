// SPDX-License-Identifier: MIT
/// What compare_tiers.cpp compares with: reproducible numbers, and memory that notices who leaves it.
#ifndef TRIT_TESTS_GUARDED_BUFFER_H
#define TRIT_TESTS_GUARDED_BUFFER_H

#ifdef _WIN32
#define NOMINMAX
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

/// splitmix64: the same numbers on every machine.
inline uint64_t random_state = 20260101;
inline uint32_t next() {
    uint64_t z = random_state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return static_cast<uint32_t>((z ^ z >> 31) >> 16);
}

[[noreturn]] inline void fail(const std::string& what) {
    std::fprintf(stderr, "%s\n", what.c_str());
    std::exit(1);
}

/// `body` bytes that can be used and `guard` behind them that cannot, both whole pages; nullptr if there is
/// no memory.
inline char* map_guarded(size_t body, size_t guard) {
#ifdef _WIN32
    void* memory = VirtualAlloc(nullptr, body + guard, MEM_RESERVE, PAGE_NOACCESS);
    return static_cast<char*>(memory == nullptr ? nullptr
                                                : VirtualAlloc(memory, body, MEM_COMMIT, PAGE_READWRITE));
#else
    void* memory = mmap(nullptr, body + guard, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const bool good =
        memory != MAP_FAILED && mprotect(static_cast<char*>(memory) + body, guard, PROT_NONE) == 0;
    return good ? static_cast<char*>(memory) : nullptr;
#endif
}

inline size_t page_bytes() {
#ifdef _WIN32
    return 4096;
#else
    return static_cast<size_t>(sysconf(_SC_PAGESIZE));
#endif
}

/// `count` elements whose last byte is the last one of a readable page, `skew` bytes before it if that is not
/// 0.
template <typename T>
class Buffer {
 public:
    explicit Buffer(size_t count, size_t skew = 0) : count_(count) {
        const size_t page = page_bytes();
        const size_t bytes = count * sizeof(T) + skew;
        const size_t body = (bytes + kFront + page - 1) / page * page;
        size_ = body + page;
        base_ = map_guarded(body, page);
        if (base_ == nullptr) {
            fail("no memory");
        }
        front_ = body - bytes;
        std::memset(base_, kCanary, body);
        data_ = reinterpret_cast<T*>(base_ + front_);
    }
    ~Buffer() {
#ifdef _WIN32
        VirtualFree(base_, 0, MEM_RELEASE);
#else
        munmap(base_, size_);
#endif
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    T* data() { return data_; }
    size_t bytes() const { return count_ * sizeof(T); }
    T& operator[](size_t i) { return data_[i]; }
    void check_front(const std::string& what) const {
        for (size_t i = front_ < kFront ? 0 : front_ - kFront; i < front_; ++i) {
            if (base_[i] != kCanary) {
                fail(what + ": wrote in front of the result");
            }
        }
    }

 private:
    static constexpr size_t kFront = 256;
    static constexpr char kCanary = 0x5A;
    size_t count_;
    size_t size_ = 0;
    size_t front_ = 0;
    char* base_ = nullptr;
    T* data_ = nullptr;
};

#endif  // TRIT_TESTS_GUARDED_BUFFER_H
