// SPDX-License-Identifier: MIT
/// `packed_driver TIER [few|FAULT]`: packs matrices of every encoding, multiplies them on several threads,
/// and compares with formulas written here. It is what the sanitizers watch: every buffer is of exactly the
/// size that the headers ask for, and threads share what they may share.
///
/// few: only some of the matrices, always on four threads, for the slowest sanitizer.
/// FAULT: "short" (one byte less scratch memory), "signed" (an overflow) or "race" (two threads write one
/// number), to see that the sanitizer is there.
///
/// Exit code 0: all equal; 1: a difference; 2: usage; else a sanitizer's.
#include <algorithm>
#include <atomic>
#include <climits>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "guarded_buffer.h"
#include "matrix/big_memory.h"
#include "matrix/encodings.h"
#include "matrix/multiply_panels.h"
#include "matrix/packed_matrix.h"
#include "tier_faults.h"

namespace {

using trit::Encoding;
using trit::PackedMatrix;
using trit::Panels;
using trit::Shape;

std::string fault;

struct Free {
    void operator()(void* p) const { std::free(p); }
};
using Memory = std::unique_ptr<uint8_t, Free>;

Memory aligned(size_t bytes) {
    void* p = nullptr;
    // Not std::aligned_alloc, which wants a multiple: sanitizers then miss the bytes behind the end.
    return Memory(posix_memalign(&p, 64, bytes) == 0 ? static_cast<uint8_t*>(p) : nullptr);
}

enum Scales { kSame, kSameOrZero, kDifferent, kNotANumber };

/// An encoding's bytes with legal codes. Any byte is legal for tq1_0 and q2_0.
std::vector<uint8_t> make_data(const Encoding& e, const Shape& s, Scales scales) {
    std::vector<uint8_t> data(static_cast<size_t>(s.n * s.count) * e.row_bytes(s.k));
    for (uint8_t& byte : data) {
        byte = static_cast<uint8_t>(next() % 3 | next() % 3 << 2 | next() % 3 << 4 | next() % 3 << 6);
    }
    if (e.scale_at < 0) {
        const float scale = scales == kNotANumber ? HUGE_VALF : 0.37f;
        data.resize(data.size() + sizeof(scale));
        std::memcpy(data.data() + data.size() - sizeof(scale), &scale, sizeof(scale));
        return data;
    }
    const size_t last = data.size() / e.block_bytes - 1;
    for (size_t block = 0; block <= last; ++block) {
        uint16_t half = 0x3555;
        half = scales == kDifferent ? static_cast<uint16_t>(0x2000 + next() % 0x2000) : half;
        half = scales == kSameOrZero && next() % 3 == 0 ? 0 : half;
        half = scales == kNotANumber && block == last ? 0x7E00 : half;
        std::memcpy(data.data() + block * e.block_bytes + e.scale_at, &half, sizeof(half));
    }
    return data;
}

struct Tokens {
    int m;
    size_t row;  ///< distance, in bytes
    std::vector<int8_t> q;
    std::vector<float> scale;
    std::vector<int32_t> sum;
};

/// Activations of m tokens, quantised in groups.
Tokens make_tokens(const trit_tier& tier, int m, int64_t k, int64_t group) {
    const int64_t length = group == 0 ? k : std::min(group, k);
    const auto groups = static_cast<size_t>(k / length);
    const size_t row = static_cast<size_t>(k) + (m % 2 != 0 ? 0 : 32);
    const auto count = static_cast<size_t>(m);
    Tokens t{m, row, std::vector<int8_t>((count - 1) * row + static_cast<size_t>(k) + TRIT_PANEL_OVERREAD),
             std::vector<float>(count * groups), std::vector<int32_t>(count * groups)};
    for (size_t j = 0; j < count; ++j) {
        for (size_t g = 0; g < groups; ++g) {
            std::vector<float> x(static_cast<size_t>(length));
            for (float& value : x) {
                value = (static_cast<float>(next()) - 2e9f) / 1e9f;
            }
            tier.quantize(length, x.data(), t.q.data() + j * row + g * x.size(), &t.scale[j * groups + g],
                          &t.sum[j * groups + g]);
        }
    }
    return t;
}

/// One result: the formulas of include/trit.h, each step rounded.
float expected(const Encoding& e, const uint8_t* row, const std::vector<uint8_t>& codes, const Tokens& t,
               int j, int64_t group, float one_scale) {
    const auto k = static_cast<int64_t>(codes.size());
    const int64_t length = group == 0 ? k : std::min(group, k);
    float acc = 0.0f;
    for (int64_t g = 0; g < k / length; ++g) {
        int64_t sum = 0;
        for (int64_t l = g * length; l < (g + 1) * length; ++l) {
            const bool dropped = group == 0 && e.scale_at >= 0 && (e.scale(row, l / e.block) & 0x7FFF) == 0;
            const int code = dropped ? 1 : codes[static_cast<size_t>(l)];
            sum += (code - 1) * t.q[static_cast<size_t>(j) * t.row + static_cast<size_t>(l)];
        }
        const auto at = static_cast<size_t>(j * (k / length) + g);
        const volatile float value = static_cast<float>(sum);
        if (group == 0) {
            const volatile float quotient = value / t.scale[at];
            return quotient * one_scale;
        }
        const volatile float step = 1.0f / t.scale[at];
        const volatile float product = value * step;
        const volatile float scaled = product * faults::half_value(e.scale(row, g));
        acc += scaled;
    }
    return acc;
}

/// All results [count][m][n], the panels shared out among threads as the engine does it.
std::vector<float> multiply(const PackedMatrix& matrix, const trit_tier& tier, const Shape& s,
                            const Tokens& t, int threads) {
    const auto per_matrix = static_cast<size_t>(t.m * s.n);
    std::vector<float> results(static_cast<size_t>(s.count) * per_matrix, -1.0f);
    std::atomic<int64_t> next_panel{0};
    int raced = 0;
    const auto few = trit::LookupChoice::of(trit_lookup_chosen(matrix.packing()));
    const auto work = [&] {
        const size_t bytes =
            trit::multiply_panels_bytes(matrix.packing(), few, s.k, t.m) - (fault == "short" ? 1 : 0);
        const Memory scratch = aligned(bytes);
        std::vector<float*> out(static_cast<size_t>(t.m));
        for (int64_t i = next_panel++; i < matrix.panels() * s.count; i = next_panel++) {
            const int64_t stack = i / matrix.panels();
            for (size_t j = 0; j < out.size(); ++j) {
                out[j] =
                    results.data() + static_cast<size_t>(stack) * per_matrix + j * static_cast<size_t>(s.n);
            }
            const int at_once = static_cast<int>(i % 3) * 5;  // all, 5, 10
            trit::multiply_panels(tier, matrix, few, at_once, stack, i % matrix.panels(),
                                  i % matrix.panels() + 1, t.q.data(), t.row, t.scale.data(), t.sum.data(),
                                  t.m, scratch.get(), out.data());
        }
        if (fault == "race") {
            ++raced;
        }
    };
    std::vector<std::thread> others;
    for (int i = 1; i < threads; ++i) {
        others.emplace_back(work);
    }
    work();
    for (std::thread& other : others) {
        other.join();
    }
    return results;
}

/// The panels of one scale, made from codes one by one.
void compare_panels(const PackedMatrix& matrix, const Encoding& e, const Shape& s,
                    const std::vector<uint8_t>& data, const std::string& what) {
    const auto k = static_cast<size_t>(s.k);
    for (int64_t i = 0; i < matrix.panels() * s.count; ++i) {
        const int64_t first = i % matrix.panels() * TRIT_PANEL_ROWS;
        const auto rows = static_cast<int>(std::min<int64_t>(TRIT_PANEL_ROWS, s.n - first));
        std::vector<uint8_t> codes(static_cast<size_t>(rows) * k);
        for (int r = 0; r < rows; ++r) {
            const uint8_t* row =
                data.data() + static_cast<size_t>(i / matrix.panels() * s.n + first + r) * e.row_bytes(s.k);
            uint8_t* to = codes.data() + static_cast<size_t>(r) * k;
            e.unpack(s.k, row, to);
            for (int64_t l = 0; e.scale_at >= 0 && l < s.k; ++l) {
                to[l] = (e.scale(row, l / e.block) & 0x7FFF) == 0 ? 1 : to[l];
            }
        }
        const size_t bytes = trit_panel_bytes(matrix.packing(), s.k);
        std::vector<uint8_t> panel(bytes);
        trit_panel_pack(matrix.packing(), s.k, rows, codes.data(), k, panel.data());
        const Panels there = matrix.matrix(i / matrix.panels());
        if (std::memcmp(panel.data(),
                        there.data + static_cast<size_t>(i % matrix.panels()) * there.panel_bytes,
                        bytes) != 0) {
            fail(what + ": panel " + std::to_string(i) + " has other bytes");
        }
    }
}

void compare(const trit_tier& tier, const Encoding& e, const Shape& s, Scales scales, int m, int threads) {
    const std::string what = std::string(e.name) + " k=" + std::to_string(s.k) + " n=" + std::to_string(s.n) +
                             " x " + std::to_string(s.count) + " m=" + std::to_string(m);
    if (!PackedMatrix::possible(tier, e, s)) {
        fail(what + ": not possible");
    }
    const std::vector<uint8_t> data = make_data(e, s, scales);
    const Memory memory = aligned(PackedMatrix::bytes(tier, e, s));
    const char* wrong = PackedMatrix::pack(tier, e, s, data.data(), threads, memory.get());
    if ((wrong != nullptr) != (scales == kNotANumber)) {
        fail(what + (wrong != nullptr ? std::string(": ") + wrong : ": a broken scale is taken"));
    }
    if (wrong != nullptr) {
        return;
    }
    const PackedMatrix matrix(memory.get());
    // A single block of a row may stand for a pair of them.
    const bool alone = e.group() != 0 && s.k == e.block;
    const int64_t group = alone ? std::max(e.group(), PackedMatrix::kGroup) : e.group();
    if (matrix.group() != (scales == kDifferent ? group : 0)) {
        fail(what + ": group " + std::to_string(matrix.group()));
    }
    if (matrix.group() == 0) {
        compare_panels(matrix, e, s, data, what);
    }
    const Tokens t = make_tokens(tier, m, s.k, matrix.group());
    const std::vector<float> results = multiply(matrix, tier, s, t, threads);
    const float one_scale = e.scale_at < 0 ? 0.37f : faults::half_value(0x3555);
    std::vector<uint8_t> codes(static_cast<size_t>(s.k));
    for (int64_t i = 0; i < s.n * s.count; ++i) {
        const uint8_t* row = data.data() + static_cast<size_t>(i) * e.row_bytes(s.k);
        e.unpack(s.k, row, codes.data());
        for (int j = 0; j < m; ++j) {
            const float result = results[static_cast<size_t>((i / s.n * m + j) * s.n + i % s.n)];
            if (expected(e, row, codes, t, j, matrix.group(), one_scale) != result) {
                fail(what + ": row " + std::to_string(i) + ", token " + std::to_string(j));
            }
        }
    }
}

/// A code that stands for no weight, met by one of many threads.
void refuse(const trit_tier& tier, const Encoding& e, int threads) {
    const Shape s{512, 200, 1};
    std::vector<uint8_t> data = make_data(e, s, kSame);
    data[150 * e.row_bytes(s.k) + 3] |= 0xC0;
    const Memory memory = aligned(PackedMatrix::bytes(tier, e, s));
    if (PackedMatrix::pack(tier, e, s, data.data(), threads, memory.get()) == nullptr) {
        fail(std::string(e.name) + ": code 3 is taken");
    }
}

void big_memory() {
    for (const size_t size :
         {size_t{1}, size_t{64}, size_t{2} << 20, (size_t{2} << 20) + 1, size_t{5} << 20}) {
        auto* memory = static_cast<uint8_t*>(trit::alloc_big(size));
        if (memory == nullptr || memory[0] != 0 || memory[size - 1] != 0) {
            fail("alloc_big: not zero");
        }
        std::memset(memory, 1, size);
        trit::forget_file_pages(memory, size);  // no file: keeps it
        if (memory[size / 2] != 1) {
            fail("forget_file_pages: forgot what is in no file");
        }
        trit::free_big(memory, size);
    }
}

}  // namespace

int main(int argc, char** argv) {
    const trit_tier* tier = argc >= 2 ? trit_tier_by_name(argv[1]) : nullptr;
    if (tier == nullptr || !tier->supported()) {
        std::fprintf(stderr, "usage: packed_driver TIER [few|FAULT], with a tier that this CPU runs\n");
        return 2;
    }
    const bool few = argc == 3 && std::strcmp(argv[2], "few") == 0;
    fault = argc == 3 && !few ? argv[2] : "";
    volatile int most = INT_MAX;
    most = most + (fault == "signed" ? 1 : 0);
    std::vector<std::thread> choosers;
    for (int i = 0; i < 4; ++i) {
        choosers.emplace_back([] { trit_tier_chosen(); });
    }
    for (std::thread& chooser : choosers) {
        chooser.join();
    }
    big_memory();
    int combination = 0;
    for (const char* name : {"i2_s", "tq2_0", "tq1_0", "q2_0"}) {
        const Encoding& e = *trit::find_encoding(name);
        for (const int64_t n :
             few ? std::vector<int64_t>{100, 260} : std::vector<int64_t>{32, 33, 64, 100, 130}) {
            for (const int m : few ? std::vector<int>{2} : std::vector<int>{1, 2, 7, 33}) {
                for (const Scales scales : {kSame, kSameOrZero, kDifferent, kNotANumber}) {
                    // 7 and 3 have no factor in common with the turns of the inner loops.
                    const Shape shape{e.block * (1 + combination % 7), n, 1 + combination % 3};
                    compare(*tier, e, shape, scales, m, few ? 4 : 1 + combination / 3 % 4);
                    ++combination;
                }
            }
        }
        if (!e.has_code_3 && std::strcmp(name, "tq1_0") != 0) {
            refuse(*tier, e, 4);
        }
    }
    std::printf("%s: %d matrices, all equal\n", tier->name, combination);
    return 0;
}
