// SPDX-License-Identifier: MIT
/// What the measuring programs share: threads that start together, memory of known pages, the two limits of a
/// machine (int8 multiply-accumulates and bytes read per second), flags, and output as one JSON object a
/// line.
#ifndef TRIT_MEASURE_H
#define TRIT_MEASURE_H

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "kernels/packing_names.h"
#include "trit.h"

namespace trit {

/// Spinning: waking a sleeping thread takes longer than a small product.
class Barrier {
 public:
    explicit Barrier(int count) : count_(count) {}
    void wait();

 private:
    int count_;
    std::atomic<int> arrived_{0};
    std::atomic<int> round_{0};
};

/// Calls work(thread) on `threads` threads that start together; seconds from the first start to the last end.
double together(int threads, const std::function<void(int)>& work);

/// Bytes filled with a pattern of legal weights, on huge pages where the system gives them or on plain ones.
class Memory {
 public:
    Memory(size_t bytes, bool huge);
    ~Memory();
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    uint8_t* data() const { return data_; }
    size_t bytes() const { return bytes_; }
    bool huge() const { return huge_; }

 private:
    uint8_t* data_;
    size_t bytes_;
    bool huge_;
};

/// int8 multiply-accumulates per second in registers, in 10^9: runs of `seconds`.
class MacLimit {
 public:
    MacLimit(const trit_tier& tier, int threads, double seconds);
    double measure() const;

 private:
    const trit_tier& tier_;
    int threads_;
    int64_t rounds_ = 256;
};

/// One way of reading memory: one linear stream per thread.
struct ReadPattern {
    const Memory* memory;
    size_t ahead;  ///< bytes of prefetch in front of the loads; 0: none
};
std::vector<ReadPattern> read_patterns(const std::vector<const Memory*>& memories);

/// Bytes read per second, in 10^9. Each call reads on where the last one stopped, so that what the caches
/// still hold is the oldest of all.
class ReadLimit {
 public:
    ReadLimit(const trit_tier& tier, int threads) : tier_(tier), threads_(threads) {}
    /// Reads about `bytes` bytes; 0: the whole memory.
    double measure(const ReadPattern& pattern, size_t bytes);

 private:
    const trit_tier& tier_;
    int threads_;
    size_t at_ = 0;
};

/// Flags `--name value` of a measuring program. A mistake ends the program: one sentence, exit code 2.
class Flags {
 public:
    /// defaults: every flag there is, with its value.
    Flags(int argc, char** argv, std::map<std::string, std::string> defaults);

    const std::string& text(const std::string& name) const { return values_.at(name); }
    double number(const std::string& name, double least) const;
    std::vector<int> numbers(const std::string& name) const;
    std::vector<std::string> words(const std::string& name) const;
    /// --tier: a name, "chosen" or "all"; those that this CPU has and that pass their self-test.
    std::vector<const trit_tier*> tiers() const;

 private:
    std::map<std::string, std::string> values_;
};

[[noreturn]] void usage_error(const std::string& sentence);

/// Text of a JSON object, printed as one line.
class JsonLine {
 public:
    JsonLine& add(const char* key, const std::string& value);
    JsonLine& add(const char* key, double value);
    /// A whole number, in full.
    JsonLine& count(const char* key, int64_t value);
    JsonLine& add(const char* key, const std::vector<double>& values);
    JsonLine& add(const char* key, const std::vector<std::string>& values);
    void print() const;

 private:
    JsonLine& raw(const char* key, const std::string& json);
    std::string text_;
};

/// Names of the first `count` packings that the tier, or a look-up kernel that works here, reads.
std::vector<std::string> packings_of(const trit_tier& tier, int count);

/// "gcc 12.2.0"
std::string compiler_name();

}  // namespace trit

#endif  // TRIT_MEASURE_H
