// SPDX-License-Identifier: MIT
#include "tools/measure.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "kernels/registry.h"
#include "matrix/big_memory.h"

#if !defined(_WIN32)
#include <sys/mman.h>
#endif

namespace trit {
namespace {

using Clock = std::chrono::steady_clock;

/// Legal in every packing: four codes of two bits 0, 1, 2, 1; five trits 1, 2, 2, 0, 0.
constexpr int kFill = 0x19;
constexpr size_t kPage = 4096;
/// After this many looks at the barrier a thread lets others run: there may be fewer CPUs than threads.
constexpr int kSpins = 20000;

#if defined(_WIN32)
uint8_t* map_plain(size_t bytes) { return static_cast<uint8_t*>(alloc_big(bytes)); }
void unmap_plain(uint8_t* data, size_t bytes) { free_big(data, bytes); }
#else
uint8_t* map_plain(size_t bytes) {
    void* area = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) {
        return nullptr;
    }
#if defined(MADV_NOHUGEPAGE)
    madvise(area, bytes, MADV_NOHUGEPAGE);
#endif
    return static_cast<uint8_t*>(area);
}
void unmap_plain(uint8_t* data, size_t bytes) { munmap(data, bytes); }
#endif

std::vector<std::string> split(const std::string& text) {
    std::vector<std::string> words;
    for (size_t start = 0; start <= text.size();) {
        const size_t end = std::min(text.find(',', start), text.size());
        words.push_back(text.substr(start, end - start));
        start = end + 1;
    }
    return words;
}

std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
        }
        out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
    return out + '"';
}

std::string shown(double value) {
    char text[32];
    std::snprintf(text, sizeof(text), "%.9g", value);
    return text;
}

template <typename T, typename Show>
std::string listed(const std::vector<T>& values, const Show& show) {
    std::string list;
    for (const T& value : values) {
        list += (list.empty() ? "" : ", ") + show(value);
    }
    return "[" + list + "]";
}

}  // namespace

void Barrier::wait() {
    const int round = round_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count_) {
        arrived_.store(0, std::memory_order_relaxed);
        round_.store(round + 1, std::memory_order_release);
        return;
    }
    for (int spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
        if (spins > kSpins) {
            std::this_thread::yield();
        }
    }
}

double together(int threads, const std::function<void(int)>& work) {
    Barrier start(threads);
    std::vector<Clock::time_point> starts(static_cast<size_t>(threads));
    std::vector<Clock::time_point> ends(static_cast<size_t>(threads));
    const auto run = [&](int thread) {
        start.wait();
        const Clock::time_point before = Clock::now();
        work(thread);
        ends[static_cast<size_t>(thread)] = Clock::now();
        starts[static_cast<size_t>(thread)] = before;
    };
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t) {
        others.emplace_back(run, t);
    }
    run(0);
    for (std::thread& thread : others) {
        thread.join();
    }
    const auto first = *std::min_element(starts.begin(), starts.end());
    const auto last = *std::max_element(ends.begin(), ends.end());
    return std::max(std::chrono::duration<double>(last - first).count(), 1e-9);
}

Memory::Memory(size_t bytes, bool huge)
    : data_(huge ? static_cast<uint8_t*>(alloc_big(bytes)) : map_plain(bytes)), bytes_(bytes), huge_(huge) {
    if (data_ == nullptr) {
        std::fprintf(stderr, "error: no memory for %.0f MB; ask for less with --megabytes\n",
                     static_cast<double>(bytes) / 1e6);
        std::exit(1);
    }
    // Written once: pages that nobody wrote are all the same page of zeros.
    std::memset(data_, kFill, bytes);
}

Memory::~Memory() {
    if (huge_) {
        free_big(data_, bytes_);
    } else {
        unmap_plain(data_, bytes_);
    }
}

MacLimit::MacLimit(const trit_tier& tier, int threads, double seconds) : tier_(tier), threads_(threads) {
    const auto took = [&] { return together(1, [&](int) { tier.mac_loop(rounds_); }); };
    // The best of three: one interruption must not end the search with a run that is too short.
    while (std::min({took(), took(), took()}) < seconds && rounds_ < (int64_t{1} << 40)) {
        rounds_ *= 2;
    }
}

double MacLimit::measure() const {
    std::atomic<int64_t> macs{0};
    const double seconds = together(threads_, [&](int) { macs += tier_.mac_loop(rounds_); });
    return static_cast<double>(macs.load()) / seconds / 1e9;
}

std::vector<ReadPattern> read_patterns(const std::vector<const Memory*>& memories) {
    std::vector<ReadPattern> patterns;
    for (const Memory* memory : memories) {
        for (const size_t ahead : {0, 512, 1024, 2048, 4096, 8192}) {
            patterns.push_back({memory, ahead});
        }
    }
    return patterns;
}

double ReadLimit::measure(const ReadPattern& pattern, size_t bytes) {
    const size_t share = pattern.memory->bytes() / static_cast<size_t>(threads_) / kPage * kPage;
    if (share == 0) {
        usage_error("--megabytes: less than one page for each thread; give more");
    }
    size_t each = bytes / static_cast<size_t>(threads_) / kPage * kPage;
    each = bytes == 0 ? share : std::clamp(each, std::min(share, 16 * kPage), share);
    if (at_ + each > share) {
        at_ = 0;
    }
    const double seconds = together(threads_, [&](int thread) {
        volatile uint64_t sink = tier_.read_loop(
            pattern.memory->data() + static_cast<size_t>(thread) * share + at_, each, pattern.ahead);
        (void)sink;
    });
    at_ += each;
    return static_cast<double>(each) * threads_ / seconds / 1e9;
}

Flags::Flags(int argc, char** argv, std::map<std::string, std::string> defaults)
    : values_(std::move(defaults)) {
    for (int i = 1; i < argc; i += 2) {
        const auto found = values_.find(argv[i]);
        if (found == values_.end()) {
            std::string known;
            for (const auto& flag : values_) {
                known += " " + flag.first;
            }
            usage_error(std::string(argv[i]) + ": no such flag; there are" + known);
        }
        if (i + 1 == argc) {
            usage_error(std::string(argv[i]) + ": needs a value");
        }
        found->second = argv[i + 1];
    }
}

double Flags::number(const std::string& name, double least) const {
    const std::string& given = text(name);
    char* end = nullptr;
    const double value = std::strtod(given.c_str(), &end);
    if (given.empty() || *end != '\0' || !(value >= least) || value > 1e9) {
        usage_error(name + " " + given + ": expected a number of at least " + shown(least));
    }
    return value;
}

std::vector<int> Flags::numbers(const std::string& name) const {
    std::vector<int> values;
    for (const std::string& word : words(name)) {
        char* end = nullptr;
        const long value = std::strtol(word.c_str(), &end, 10);
        if (word.empty() || *end != '\0' || value < 1 || value > 65536) {
            usage_error(name + " " + text(name) +
                        ": expected whole numbers of 1 or more, separated by commas");
        }
        values.push_back(static_cast<int>(value));
    }
    return values;
}

std::vector<std::string> Flags::words(const std::string& name) const { return split(text(name)); }

std::vector<const trit_tier*> Flags::tiers() const {
    const std::string& wanted = text("--tier");
    if (wanted == "chosen") {
        return {trit_tier_chosen()};
    }
    std::vector<const trit_tier*> found;
    for (int i = 0; i < trit_tier_count(); ++i) {
        const trit_tier* tier = trit_tier_at(i);
        const bool named = wanted == tier->name;
        if (!named && wanted != "all") {
            continue;
        }
        if (!tier->supported()) {
            if (named) {
                usage_error("--tier " + wanted + ": this CPU lacks " + tier->features);
            }
            continue;
        }
        char message[256] = "";
        if (trit_selftest(tier, message, sizeof(message))) {
            found.push_back(tier);
        } else {
            std::fprintf(stderr, "%s: left out, it fails its self-test: %s\n", tier->name, message);
        }
    }
    if (found.empty()) {
        usage_error("--tier " + wanted + ": there is no such tier that works here; trit-selftest lists them");
    }
    return found;
}

void usage_error(const std::string& sentence) {
    std::fprintf(stderr, "error: %s\n", sentence.c_str());
    std::exit(2);
}

JsonLine& JsonLine::raw(const char* key, const std::string& json) {
    text_ += (text_.empty() ? "" : ", ") + quoted(key) + ": " + json;
    return *this;
}

JsonLine& JsonLine::add(const char* key, const std::string& value) { return raw(key, quoted(value)); }
JsonLine& JsonLine::add(const char* key, double value) { return raw(key, shown(value)); }

JsonLine& JsonLine::count(const char* key, int64_t value) { return raw(key, std::to_string(value)); }

JsonLine& JsonLine::add(const char* key, const std::vector<double>& values) {
    return raw(key, listed(values, shown));
}

JsonLine& JsonLine::add(const char* key, const std::vector<std::string>& values) {
    return raw(key, listed(values, quoted));
}

void JsonLine::print() const {
    std::printf("{%s}\n", text_.c_str());
    std::fflush(stdout);
}

std::vector<std::string> packings_of(const trit_tier& tier, int count) {
    std::vector<std::string> names;
    for (int i = 0; i < count; ++i) {
        const auto packing = static_cast<trit_packing>(i);
        if (is_ternary(packing) && is_readable(tier, packing)) {
            names.emplace_back(packing_name(packing));
        }
    }
    return names;
}

std::string compiler_name() {
#if defined(__clang__)
    return "clang " + std::to_string(__clang_major__) + "." + std::to_string(__clang_minor__) + "." +
           std::to_string(__clang_patchlevel__);
#elif defined(__GNUC__)
    return "gcc " + std::to_string(__GNUC__) + "." + std::to_string(__GNUC_MINOR__) + "." +
           std::to_string(__GNUC_PATCHLEVEL__);
#elif defined(_MSC_VER)
    return "MSVC " + std::to_string(_MSC_VER);
#else
    return "unknown";
#endif
}

}  // namespace trit
