// SPDX-License-Identifier: MIT
/// What compare_tiers.cpp compares with: reproducible numbers, and memory that notices who leaves it.
#ifndef TRIT_TESTS_GUARDED_BUFFER_H
#define TRIT_TESTS_GUARDED_BUFFER_H

#include <sys/mman.h>
#include <unistd.h>

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

/// `count` elements whose last byte is the last one of a readable page, `skew` bytes before it if that is not
/// 0.
template <typename T>
class Buffer {
 public:
    explicit Buffer(size_t count, size_t skew = 0) : count_(count) {
        const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
        const size_t bytes = count * sizeof(T) + skew;
        const size_t body = (bytes + kFront + page - 1) / page * page;
        size_ = body + page;
        void* memory = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED || mprotect(static_cast<char*>(memory) + body, page, PROT_NONE) != 0) {
            fail("no memory");
        }
        base_ = static_cast<char*>(memory);
        front_ = body - bytes;
        std::memset(base_, kCanary, body);
        data_ = reinterpret_cast<T*>(base_ + front_);
    }
    ~Buffer() { munmap(base_, size_); }
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
