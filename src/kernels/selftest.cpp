// SPDX-License-Identifier: MIT
/// Compares a tier with the scalar reference before the tier is used.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <vector>

#include "kernels/align.h"
#include "kernels/illegal_instruction.h"
#include "trit.h"

extern "C" const trit_tier trit_tier_scalar;

namespace {

constexpr int kRows = 5;          // one tile of rows and a rest
constexpr int kTokens = 15;       // two tiles of tokens and a rest
constexpr int kPanelTokens = 53;  // AMX: 32 + 16 tokens and a rest; a block of tiles of 6 and 5
constexpr int32_t kGuard = 0x5EED5EED;

/// Numbers of a linear congruential generator (Knuth's MMIX constants): the same on every machine.
class Random {
 public:
    uint32_t next() {
        state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
        return static_cast<uint32_t>(state_ >> 33);
    }

 private:
    uint64_t state_ = 42;
};

enum class Fill { kRandom, kHighest, kLowest };

struct Problem {
    int64_t k;
    std::vector<uint8_t> codes;
    std::vector<int8_t> q;
};

/// Codes that the packing holds, or all the highest one.
std::vector<uint8_t> make_codes(Random& random, size_t count, trit_packing packing, Fill fill) {
    const uint32_t highest = packing == TRIT_PACKING_2_BITS ? 3 : 2;
    const uint32_t step = packing == TRIT_PACKING_1_BIT ? 2 : 1;
    std::vector<uint8_t> codes(count, static_cast<uint8_t>(highest));
    for (size_t i = 0; fill == Fill::kRandom && i < count; ++i) {
        codes[i] = static_cast<uint8_t>(random.next() % (highest / step + 1) * step);
    }
    return codes;
}

enum class Outcome { kEqual, kDiffers, kIllegal };
using Guard = trit::IllegalInstructionGuard;

void fill_activations(Random& random, Fill fill, std::vector<int8_t>& q) {
    for (int8_t& value : q) {
        value = fill == Fill::kRandom    ? static_cast<int8_t>(random.next() & 0xFF)
                : fill == Fill::kHighest ? int8_t{127}
                                         : int8_t{-128};
    }
}

Problem make_problem(Random& random, int64_t k, Fill fill) {
    Problem p{k, std::vector<uint8_t>(static_cast<size_t>(kRows * k / 4)),
              std::vector<int8_t>(static_cast<size_t>(kTokens * k))};
    for (uint8_t& byte : p.codes) {
        uint8_t value = 0xAA;  // four times code 2, the largest valid sum
        if (fill == Fill::kRandom) {
            value = 0;
            for (int field = 0; field < 4; ++field) {
                value = static_cast<uint8_t>(value << 2 | random.next() % 3);
            }
        }
        byte = value;
    }
    fill_activations(random, fill, p.q);
    return p;
}

Outcome outcome(bool legal, bool equal) {
    return !legal ? Outcome::kIllegal : equal ? Outcome::kEqual : Outcome::kDiffers;
}

Outcome compare_sums(Guard& guard, const trit_tier& tier, const Problem& p, int m) {
    const size_t row_bytes = static_cast<size_t>(p.k / 4);
    const size_t q_row_bytes = static_cast<size_t>(p.k);
    std::vector<int32_t> expected(static_cast<size_t>(kRows * m + 1), kGuard);
    std::vector<int32_t> actual = expected;
    trit_tier_scalar.i2_s(p.k, p.codes.data(), row_bytes, kRows, p.q.data(), q_row_bytes, m, expected.data(),
                          kRows);
    const bool legal = guard.run([&] {
        tier.i2_s(p.k, p.codes.data(), row_bytes, kRows, p.q.data(), q_row_bytes, m, actual.data(), kRows);
    });
    return outcome(legal, expected == actual);
}

/// Panel kernels: few tokens and many, each number against the same sums.
Outcome compare_panel(Guard& guard, const trit_tier& tier, Random& random, trit_packing packing, int64_t k,
                      Fill fill) {
    const size_t width = static_cast<size_t>(k);
    const size_t q_row_bytes = width + TRIT_PANEL_OVERREAD;
    const std::vector<uint8_t> codes = make_codes(random, TRIT_PANEL_ROWS * width, packing, fill);
    std::vector<int8_t> q(kPanelTokens * q_row_bytes);
    fill_activations(random, fill, q);
    std::vector<uint8_t> memory(trit_panel_bytes(packing, k) + TRIT_PANEL_ALIGN);
    auto* panel = reinterpret_cast<uint8_t*>(trit::align_up(reinterpret_cast<size_t>(memory.data())));
    trit_panel_pack(packing, k, TRIT_PANEL_ROWS, codes.data(), width, panel);
    std::vector<int32_t> all(kPanelTokens * TRIT_PANEL_ROWS);
    trit_tier_scalar.panel[packing](k, panel, q.data(), q_row_bytes, kPanelTokens, all.data());
    for (const int m : {1, 2, 3, 4, 5, 6, 7, 8, 11, 15, 16, 17, 31, 32, 33, 48, kPanelTokens}) {
        std::vector<int32_t> expected(all.begin(), all.begin() + m * TRIT_PANEL_ROWS);
        std::vector<int32_t> actual(expected.size() + 1, kGuard);
        expected.push_back(kGuard);
        const bool legal =
            guard.run([&] { tier.panel[packing](k, panel, q.data(), q_row_bytes, m, actual.data()); });
        if (!legal || expected != actual) {
            return outcome(legal, false);
        }
    }
    return Outcome::kEqual;
}

/// Look-up kernels: one panel and several, few tokens and as many as there may be.
Outcome compare_lookup(Guard& guard, const trit_lookup_kernel& kernel, Random& random, int64_t k, Fill fill,
                       int m) {
    const size_t width = static_cast<size_t>(k);
    const int count = m % 2 == 0 ? 1 : std::min(kernel.panels, 3);
    const size_t rows = static_cast<size_t>(count) * TRIT_PANEL_ROWS;
    const size_t panel_bytes = trit_panel_bytes(kernel.packing, k);
    const size_t reference_bytes = trit_panel_bytes(TRIT_PACKING_2_BITS, k);
    const std::vector<uint8_t> codes = make_codes(random, rows * width, TRIT_PACKING_5_TRITS, fill);
    std::vector<int8_t> q(static_cast<size_t>(m) * width + TRIT_PANEL_OVERREAD);
    fill_activations(random, fill, q);
    // Panels are multiples of TRIT_PANEL_ALIGN.
    std::vector<char> memory(TRIT_PANEL_ALIGN + reference_bytes + panel_bytes * static_cast<size_t>(count) +
                             kernel.work_bytes);
    auto* reference = reinterpret_cast<uint8_t*>(trit::align_up(reinterpret_cast<size_t>(memory.data())));
    uint8_t* panels = reference + reference_bytes;
    void* work = panels + panel_bytes * static_cast<size_t>(count);
    std::vector<int32_t> expected(static_cast<size_t>(m) * (rows + 1), kGuard);
    std::vector<int32_t> actual = expected;
    std::vector<int32_t> sums(static_cast<size_t>(m) * TRIT_PANEL_ROWS);
    for (int p = 0; p < count; ++p) {
        uint8_t* panel = panels + panel_bytes * static_cast<size_t>(p);
        const uint8_t* block = codes.data() + static_cast<size_t>(p) * TRIT_PANEL_ROWS * width;
        trit_panel_pack(kernel.packing, k, TRIT_PANEL_ROWS, block, width, panel);
        trit_panel_pack(TRIT_PACKING_2_BITS, k, TRIT_PANEL_ROWS, block, width, reference);
        trit_tier_scalar.panel[TRIT_PACKING_2_BITS](k, reference, q.data(), width, m, sums.data());
        for (int j = 0; j < m; ++j) {
            const int8_t* x = q.data() + static_cast<size_t>(j) * width;
            const int32_t act_sum = std::accumulate(x, x + k, int32_t{0});
            for (int r = 0; r < TRIT_PANEL_ROWS; ++r) {
                expected[static_cast<size_t>(j) * (rows + 1) + static_cast<size_t>(p * TRIT_PANEL_ROWS + r)] =
                    sums[static_cast<size_t>(j * TRIT_PANEL_ROWS + r)] - act_sum;
            }
        }
    }
    const bool legal = guard.run([&] {
        kernel.multiply(k, panels, panel_bytes, count, q.data(), width, m, work, actual.data(), rows + 1);
    });
    return outcome(legal, expected == actual);
}

/// What floating point makes of sums: every number of rows, one scale and one for each row.
Outcome compare_ends(Guard& guard, const trit_tier& tier, Random& random) {
    std::vector<int32_t> c(TRIT_PANEL_ROWS);
    std::vector<float> scales(TRIT_PANEL_ROWS);
    std::vector<uint16_t> halves(TRIT_PANEL_ROWS);
    for (int n = 1; n <= TRIT_PANEL_ROWS; ++n) {
        for (int i = 0; i < TRIT_PANEL_ROWS; ++i) {
            c[i] = static_cast<int32_t>(random.next() % 2000001) - 1000000;
            scales[i] = static_cast<float>(random.next()) / 1e9f;
            halves[i] =
                static_cast<uint16_t>(random.next() % 0x7C00u | (random.next() & 0x8000u));  // any finite one
        }
        std::vector<float> out[2];
        const trit_tier* both[2] = {&trit_tier_scalar, &tier};
        for (int which = 0; which < 2; ++which) {
            out[which].assign(TRIT_PANEL_ROWS, 1.0f);
            const bool legal = guard.run([&] {
                both[which]->finish(n, c.data(), 77, 3.7f, scales.data(), n % 2, out[which].data());
                both[which]->accumulate(c.data(), -5, 0.37f, halves.data(), out[which].data());
            });
            if (!legal) {
                return Outcome::kIllegal;
            }
        }
        if (std::memcmp(out[0].data(), out[1].data(), TRIT_PANEL_ROWS * sizeof(float)) != 0) {
            return Outcome::kDiffers;
        }
    }
    return Outcome::kEqual;
}

Outcome compare_quantize(Guard& guard, const trit_tier& tier, Random& random, int64_t k, float magnitude) {
    const size_t n = static_cast<size_t>(k);
    std::vector<float> x(n);
    for (float& value : x) {
        // Multiples of magnitude / 254: many of them fall exactly between two integers.
        value = (static_cast<float>(random.next() % 509) - 254.0f) * (magnitude / 254.0f);
    }
    std::vector<int8_t> expected(n);
    std::vector<int8_t> actual(n);
    float scale[2] = {0.0f, 0.0f};
    int32_t sum[2] = {0, 0};
    trit_tier_scalar.quantize(k, x.data(), expected.data(), &scale[0], &sum[0]);
    const bool legal = guard.run([&] { tier.quantize(k, x.data(), actual.data(), &scale[1], &sum[1]); });
    const bool same_scale = std::memcmp(&scale[0], &scale[1], sizeof(float)) == 0;
    return outcome(legal, expected == actual && sum[0] == sum[1] && same_scale);
}

/// q6_K rows and q8_K tokens of random bytes, the tokens' block sums true.
Outcome compare_q6_k(Guard& guard, const trit_tier& tier, Random& random, int rows, int m) {
    constexpr int kBlocks = 3;
    const size_t row_bytes = kBlocks * TRIT_Q6_K_BYTES;
    const size_t token_bytes = kBlocks * TRIT_Q8_K_BYTES;
    std::vector<uint8_t> w(static_cast<size_t>(rows) * row_bytes);
    for (uint8_t& byte : w) {
        byte = static_cast<uint8_t>(random.next());
    }
    for (size_t at = 208; at < w.size(); at += TRIT_Q6_K_BYTES) {
        const auto half = static_cast<uint16_t>(random.next() % 0x4000u | (random.next() & 0x8000u));
        std::memcpy(w.data() + at, &half, sizeof(half));
    }
    std::vector<uint8_t> tokens(static_cast<size_t>(m) * token_bytes);
    for (uint8_t* block = tokens.data(); block != tokens.data() + tokens.size(); block += TRIT_Q8_K_BYTES) {
        const float scale = static_cast<float>(random.next()) / 1e9f;
        std::memcpy(block, &scale, sizeof(scale));
        for (int group = 0; group < 16; ++group) {
            int16_t sum = 0;
            for (int i = 0; i < 16; ++i) {
                const auto q = static_cast<int8_t>(static_cast<int>(random.next() % 255) - 127);
                block[4 + 16 * group + i] = static_cast<uint8_t>(q);
                sum = static_cast<int16_t>(sum + q);
            }
            std::memcpy(block + 260 + 2 * group, &sum, sizeof(sum));
        }
    }
    std::vector<float> results[2];
    const trit_tier* both[2] = {&trit_tier_scalar, &tier};
    for (int which = 0; which < 2; ++which) {
        results[which].assign(static_cast<size_t>(rows * m + 1), 1.0f);
        float* out[TRIT_Q6_K_TOKENS];
        for (int j = 0; j < m; ++j) {
            out[j] = results[which].data() + j * rows;
        }
        const bool legal = guard.run([&] {
            both[which]->q6_k(kBlocks * TRIT_K_BLOCK, w.data(), row_bytes, rows, tokens.data(), token_bytes,
                              m, out);
        });
        if (!legal) {
            return Outcome::kIllegal;
        }
    }
    return outcome(true,
                   std::memcmp(results[0].data(), results[1].data(), results[0].size() * sizeof(float)) == 0);
}

/// A panel of table indices, written as one of 2 bits.
Outcome compare_unpacking(Guard& guard, const trit_lookup_kernel& kernel, Random& random, int64_t k) {
    const size_t width = static_cast<size_t>(k);
    const std::vector<uint8_t> codes =
        make_codes(random, TRIT_PANEL_ROWS * width, TRIT_PACKING_5_TRITS, Fill::kRandom);
    const size_t panel_bytes = trit_panel_bytes(kernel.packing, k);
    const size_t out_bytes = trit_panel_bytes(TRIT_PACKING_2_BITS, k);
    std::vector<uint8_t> memory(TRIT_PANEL_ALIGN + panel_bytes + 2 * out_bytes, 0xFF);
    auto* panel = reinterpret_cast<uint8_t*>(trit::align_up(reinterpret_cast<size_t>(memory.data())));
    uint8_t* expected = panel + panel_bytes;
    uint8_t* actual = expected + out_bytes;
    trit_panel_pack(kernel.packing, k, TRIT_PANEL_ROWS, codes.data(), width, panel);
    trit_panel_to_2_bits(kernel.packing, k, panel, expected);
    const bool legal = guard.run([&] { kernel.to_2_bits(k, panel, actual); });
    return outcome(legal, std::memcmp(expected, actual, out_bytes) == 0);
}

/// Where the sentence of a failure goes.
struct Message {
    char* text;
    size_t bytes;

    /// Whether there is a failure.
    bool failed(Outcome outcome, const char* kernel, int64_t k, int m) const {
        if (outcome != Outcome::kEqual && text != nullptr) {
            std::snprintf(text, bytes, "%s (k = %lld, m = %d) %s", kernel, static_cast<long long>(k), m,
                          outcome == Outcome::kIllegal
                              ? "stops at an instruction that this machine does not execute"
                              : "differs from the scalar reference");
        }
        return outcome != Outcome::kEqual;
    }
};

}  // namespace

int trit_selftest(const trit_tier* tier, char* message, size_t message_bytes) {
    Guard guard;
    Random random;
    const Message said{message, message_bytes};
    for (const int64_t k : {int64_t{128}, int64_t{2560}, int64_t{128 * 37}}) {
        for (const Fill fill : {Fill::kRandom, Fill::kHighest, Fill::kLowest}) {
            const Problem p = make_problem(random, k, fill);
            for (const int m : {1, 2, 3, 4, 5, 6, kTokens}) {
                if (said.failed(compare_sums(guard, *tier, p, m), "i2_s", k, m)) {
                    return 0;
                }
            }
        }
        for (const float magnitude : {0.0f, 1e-7f, 1.0f, 12345.678f, 3e38f}) {
            const Outcome quantized = compare_quantize(guard, *tier, random, k, magnitude);
            if (said.failed(quantized, "quantize", k, 1)) {
                return 0;
            }
        }
    }
    if (tier->finish != nullptr &&
        said.failed(compare_ends(guard, *tier, random), "finish or accumulate", TRIT_PANEL_ROWS, 1)) {
        return 0;
    }
    for (int m = 1; tier->q6_k != nullptr && m <= TRIT_Q6_K_TOKENS; ++m) {
        if (said.failed(compare_q6_k(guard, *tier, random, 4 + m % 2, m), "q6_k", 3 * TRIT_K_BLOCK, m)) {
            return 0;
        }
    }
    constexpr const char* kPanels[TRIT_TIER_PACKINGS] = {"panel of 2 bits", "panel of 5 trits",
                                                         "panel of 1 bit"};
    for (int packing = 0; packing < TRIT_TIER_PACKINGS; ++packing) {
        if (tier->panel[packing] == nullptr) {
            continue;
        }
        for (const int64_t k : {int64_t{32}, int64_t{64}, int64_t{672}}) {
            for (const Fill fill : {Fill::kRandom, Fill::kHighest, Fill::kLowest}) {
                const Outcome panel =
                    compare_panel(guard, *tier, random, static_cast<trit_packing>(packing), k, fill);
                if (said.failed(panel, kPanels[packing], k, kPanelTokens)) {
                    return 0;
                }
            }
        }
    }
    return 1;
}

int trit_lookup_selftest(const trit_lookup_kernel* kernel, char* message, size_t message_bytes) {
    Guard guard;
    Random random;
    const Message said{message, message_bytes};
    for (const int64_t k : {int64_t{32}, int64_t{672}}) {
        for (const Fill fill : {Fill::kRandom, Fill::kHighest, Fill::kLowest}) {
            for (const int m : {1, kernel->tokens / 2 + 1, kernel->tokens}) {
                if (said.failed(compare_lookup(guard, *kernel, random, k, fill, m), "look-up", k, m)) {
                    return 0;
                }
            }
        }
    }
    for (const int64_t k : {int64_t{32}, int64_t{64}, int64_t{672}}) {
        if (kernel->to_2_bits != nullptr &&
            said.failed(compare_unpacking(guard, *kernel, random, k), "to_2_bits", k, 0)) {
            return 0;
        }
    }
    // Inputs in several turns.
    constexpr int64_t kMany = 4128;
    if (said.failed(compare_lookup(guard, *kernel, random, kMany, Fill::kRandom, 1), "look-up", kMany, 1)) {
        return 0;
    }
    return 1;
}
