// SPDX-License-Identifier: MIT
/// `compare_tiers TIER [FAULT]`: one tier against arithmetic written here from include/trit.h, for machines
/// where Python cannot load the library (emulators). Every buffer ends at a page that may not be touched and
/// has canaries in front. With FAULT one of the tier's functions is wrong on purpose, and this must notice.
/// `compare_tiers TIER selftest`: the library's self-test even if this CPU lacks the tier, to see it survive.
///
/// Exit code 0: all equal; 1: a difference, named on stderr; 2: usage; a signal: memory beyond a buffer.
#include <cfloat>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "guarded_buffer.h"
#include "tier_faults.h"
#include "trit.h"

namespace {

trit_tier tested;  // the tier, or what a fault made of it
long comparisons = 0;

std::string at(const char* kernel, int64_t k, int n, int m) {
    return std::string(kernel) + " k=" + std::to_string(k) + " n=" + std::to_string(n) +
           " m=" + std::to_string(m);
}

enum Fill { kRandom, kHighest, kLowest, kAlternating };

int8_t activation(Fill fill, int64_t i) {
    switch (fill) {
        case kHighest:
            return 127;
        case kLowest:
            return -128;
        case kAlternating:
            return i % 2 == 0 ? 127 : -128;
        default:
            return static_cast<int8_t>(next());
    }
}

/// Sums in 64 bits, from a byte per code.
std::vector<int32_t> expected_sums(int64_t k, const std::vector<uint8_t>& codes, int n, const int8_t* q,
                                   size_t q_row_bytes, int m) {
    std::vector<int32_t> sums(static_cast<size_t>(n) * static_cast<size_t>(m));
    for (int j = 0; j < m; ++j) {
        for (int i = 0; i < n; ++i) {
            int64_t sum = 0;
            for (int64_t l = 0; l < k; ++l) {
                sum += static_cast<int64_t>(codes[static_cast<size_t>(i * k + l)]) *
                       q[static_cast<size_t>(j) * q_row_bytes + static_cast<size_t>(l)];
            }
            sums[static_cast<size_t>(j * n + i)] = static_cast<int32_t>(sum);
        }
    }
    return sums;
}

std::vector<uint8_t> make_codes(int64_t count, Fill fill) {
    std::vector<uint8_t> codes(static_cast<size_t>(count));
    for (uint8_t& code : codes) {
        code = fill == kRandom ? static_cast<uint8_t>(next() % 4) : uint8_t{3};
    }
    return codes;
}

/// skew: bytes that make every pointer odd; gap: bytes between rows, columns between results.
void compare_i2_s(int64_t k, int n, int m, Fill fill, size_t skew, size_t gap) {
    const std::string what = at("i2_s", k, n, m);
    const std::vector<uint8_t> codes = make_codes(n * k, fill);
    const size_t row = static_cast<size_t>(k) / 4 + gap;
    const size_t q_row = static_cast<size_t>(k) + gap;
    Buffer<uint8_t> w(static_cast<size_t>(n) * row - gap, skew);
    Buffer<int8_t> q(static_cast<size_t>(m) * q_row - gap, skew);
    for (int64_t i = 0; i < n; ++i) {
        for (int64_t l = 0; l < k; ++l) {
            uint8_t& byte = w[static_cast<size_t>(i) * row + static_cast<size_t>(l / 128 * 32 + l % 32)];
            const int shift = 6 - 2 * static_cast<int>(l % 128 / 32);
            byte =
                static_cast<uint8_t>((byte & ~(3 << shift)) | codes[static_cast<size_t>(i * k + l)] << shift);
        }
    }
    for (size_t i = 0; i < q.bytes(); ++i) {
        q[i] = activation(fill, static_cast<int64_t>(i));
    }
    const size_t stride = static_cast<size_t>(n) + gap;
    Buffer<int32_t> c(static_cast<size_t>(m) * stride - gap);
    const std::vector<int32_t> sums = expected_sums(k, codes, n, q.data(), q_row, m);
    std::vector<int32_t> expected(c.bytes() / sizeof(int32_t));
    std::memcpy(expected.data(), c.data(), c.bytes());  // canaries between the rows
    for (size_t j = 0; j < static_cast<size_t>(m); ++j) {
        std::memcpy(&expected[j * stride], &sums[j * static_cast<size_t>(n)], static_cast<size_t>(n) * 4);
    }
    tested.i2_s(k, w.data(), row, n, q.data(), q_row, m, c.data(), stride);
    c.check_front(what);
    if (std::memcmp(expected.data(), c.data(), c.bytes()) != 0) {
        fail(what);
    }
    ++comparisons;
}

void compare_panel(trit_packing packing, int64_t k, const std::vector<int>& tokens, Fill fill, size_t skew) {
    const int most = tokens.back();
    std::vector<uint8_t> codes = make_codes(TRIT_PANEL_ROWS * k, fill);
    for (uint8_t& code : codes) {
        code = packing == TRIT_PACKING_1_BIT ? code & 2 : code;
    }
    Buffer<uint8_t> panel(trit_panel_bytes(packing, k));
    if (trit_panel_pack(packing, k, TRIT_PANEL_ROWS, codes.data(), static_cast<size_t>(k), panel.data()) ==
        0) {
        fail("a panel holds its codes");
    }
    const size_t row = static_cast<size_t>(k) + TRIT_PANEL_OVERREAD + skew;
    Buffer<int8_t> q(static_cast<size_t>(most) * row);
    for (size_t i = 0; i < q.bytes(); ++i) {
        q[i] = activation(fill, static_cast<int64_t>(i % row));
    }
    const std::vector<int32_t> sums = expected_sums(k, codes, TRIT_PANEL_ROWS, q.data(), row, most);
    for (const int m : tokens) {
        // The last tokens, so that the guard page is right behind what may be read.
        const int first = most - m;
        Buffer<int32_t> c(static_cast<size_t>(m) * TRIT_PANEL_ROWS);
        const bool signs = packing == TRIT_PACKING_1_BIT;
        const std::string what = at(signs ? "panel of 1 bit" : "panel of 2 bits", k, TRIT_PANEL_ROWS, m);
        tested.panel[packing](k, panel.data(), q.data() + static_cast<size_t>(first) * row, row, m, c.data());
        c.check_front(what);
        if (std::memcmp(&sums[static_cast<size_t>(first) * TRIT_PANEL_ROWS], c.data(), c.bytes()) != 0) {
            fail(what);
        }
        ++comparisons;
    }
}

bool same(float a, float b) { return std::isnan(a) ? std::isnan(b) : std::memcmp(&a, &b, sizeof(a)) == 0; }

// One operation on floats, rounded once: in double it is exact enough for that (53 >= 2 * 24 + 2 bits).
float rounded(double value) { return static_cast<float>(value); }

void compare_finish(int n, int w_step, int32_t act_sum, float act_scale) {
    Buffer<int32_t> c(TRIT_PANEL_ROWS);
    Buffer<float> w(w_step == 0 ? 1 : static_cast<size_t>(n));
    Buffer<float> out(static_cast<size_t>(n));
    for (size_t i = 0; i < TRIT_PANEL_ROWS; ++i) {
        c[i] = static_cast<int32_t>(next() % 20000001) - 10000000;
    }
    for (size_t i = 0; i < w.bytes() / sizeof(float); ++i) {
        w[i] = static_cast<float>(next()) / 3e9f;
    }
    tested.finish(n, c.data(), act_sum, act_scale, w.data(), w_step, out.data());
    const std::string what = at("finish", w_step, n, 1);
    out.check_front(what);
    for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
        const float quotient = rounded(rounded(double{rounded(c[i] - act_sum)}) / double{act_scale});
        if (!same(rounded(double{quotient} * w[i * static_cast<size_t>(w_step)]), out[i])) {
            fail(what);
        }
    }
    ++comparisons;
}

/// halves: the first of 64 neighbouring bit patterns.
void compare_accumulate(uint32_t halves, int32_t act_sum, float act_step) {
    Buffer<int32_t> c(TRIT_PANEL_ROWS);
    Buffer<uint16_t> w(TRIT_PANEL_ROWS);
    Buffer<float> acc(TRIT_PANEL_ROWS);
    float expected[TRIT_PANEL_ROWS];
    for (size_t i = 0; i < TRIT_PANEL_ROWS; ++i) {
        c[i] = static_cast<int32_t>(next() % 2000001) - 1000000;
        w[i] = static_cast<uint16_t>(halves + i);
        acc[i] = (static_cast<float>(next()) - 2e9f) / 1e6f;
        const float product = rounded(double{rounded(c[i] - act_sum)} * double{act_step});
        expected[i] =
            rounded(double{acc[i]} + double{rounded(double{product} * double{faults::half_value(w[i])})});
    }
    tested.accumulate(c.data(), act_sum, act_step, w.data(), acc.data());
    acc.check_front("accumulate");
    for (size_t i = 0; i < TRIT_PANEL_ROWS; ++i) {
        if (!same(expected[i], acc[i])) {
            fail("accumulate, half precision " + std::to_string(w[i]));
        }
    }
    ++comparisons;
}

void compare_quantize(const std::vector<float>& x, const std::string& what) {
    Buffer<float> in(x.size());
    Buffer<int8_t> q(x.size());
    std::memcpy(in.data(), x.data(), in.bytes());
    float scale = 0.0f;
    int32_t sum = -1;
    tested.quantize(static_cast<int64_t>(x.size()), in.data(), q.data(), &scale, &sum);
    q.check_front("quantize");
    bool finite = true;
    float most = 1e-5f;
    for (const float value : x) {
        finite = finite && std::isfinite(value);
        most = std::fmax(most, std::fabs(value));
    }
    const float s = finite ? rounded(127.0 / double{most}) : std::numeric_limits<float>::quiet_NaN();
    int64_t total = 0;
    bool equal = same(s, scale);
    for (size_t i = 0; i < x.size(); ++i) {
        const int value = finite ? static_cast<int>(std::nearbyint(rounded(double{x[i]} * double{s}))) : 0;
        total += value;
        equal = equal && q[i] == value;
    }
    if (!equal || sum != total) {
        fail("quantize k=" + std::to_string(x.size()) + ", " + what);
    }
    ++comparisons;
}

void all_quantize() {
    for (const size_t k : {32, 64, 128, 160, 2560}) {
        for (const float magnitude : {0.0f, 1e-40f, 1e-6f, 0.37f, 1.0f, 254.0f, 1e10f, FLT_MAX}) {
            std::vector<float> x(k);
            for (float& value : x) {  // many fall exactly between two integers
                value = (static_cast<float>(next() % 509) - 254.0f) / 254.0f * magnitude;
            }
            compare_quantize(x, "magnitude " + std::to_string(magnitude));
        }
        std::vector<float> ties(k);
        ties[0] = k % 64 == 0 ? -127.0f : 127.0f;  // the scale is 1
        for (size_t i = 1; i < k; ++i) {
            ties[i] = static_cast<float>(next() % 254) - 126.5f;
        }
        compare_quantize(ties, "ties");
    }
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(),
                            HUGE_VALF, -HUGE_VALF}) {
        for (size_t place = 0; place < 64; ++place) {
            std::vector<float> x(64, 1.0f);
            x[place] = bad;
            compare_quantize(x, "not finite at " + std::to_string(place));
        }
    }
}

void all_products() {
    const std::vector<Fill> fills = {kRandom, kHighest, kLowest, kAlternating};
    for (const int64_t k : {128, 256, 384, 1024, 1280, 1408, 2688}) {  // around 10 blocks, as neon widens
        for (int n = 1; n <= 5; n += k > 256 ? 2 : 1) {
            for (int m = 1; m <= 9; ++m) {
                compare_i2_s(k, n, m, fills[static_cast<size_t>(n + m) % 4], (n + m) % 2, n % 3 == 0 ? 7 : 0);
            }
        }
    }
    for (const Fill fill : {kHighest, kLowest}) {
        compare_i2_s(int64_t{1} << 20, 1, 1, fill, 0, 0);
        compare_i2_s(int64_t{1} << 20, 1, 4, fill, 1, 0);
        compare_panel(TRIT_PACKING_2_BITS, TRIT_PANEL_MAX_K, {1, 2}, fill, 0);
        compare_panel(TRIT_PACKING_1_BIT, TRIT_PANEL_MAX_K, {1, 2}, fill, 0);
    }
    std::vector<int> every;
    for (int m = 1; m <= 34; ++m) {
        every.push_back(m);
    }
    for (int64_t k = 32; k <= 704; k += 32) {  // around one and two chunks of every tier
        compare_panel(TRIT_PACKING_2_BITS, k, k <= 288 ? every : std::vector<int>{1, 2, 3, 4, 5, 6, 7, 13},
                      fills[static_cast<size_t>(k / 32) % 4], static_cast<size_t>(k / 32) % 5);
    }
    for (const Fill fill : fills) {
        for (const trit_packing packing : {TRIT_PACKING_2_BITS, TRIT_PACKING_1_BIT}) {
            compare_panel(packing, 64, every, fill, 3);
            compare_panel(packing, 352, {1, 2, 3, 5, 11}, fill, 0);
            compare_panel(packing, 2560, {1, 2, 7}, fill, 1);
            compare_panel(packing, 6912, {1, 6}, fill, 0);
        }
    }
}

void all_ends() {
    for (int n = 1; n <= TRIT_PANEL_ROWS; ++n) {
        for (const int w_step : {0, 1}) {
            compare_finish(n, w_step, 77, 3.7f);
            compare_finish(n, w_step, -1000003, 1e-5f);
            compare_finish(n, w_step, 0, std::numeric_limits<float>::quiet_NaN());
        }
    }
    for (uint32_t halves = 0; halves < 0x10000; halves += TRIT_PANEL_ROWS) {
        compare_accumulate(halves, -5, 0.37f);
    }
    compare_accumulate(0x3C00, 9, std::numeric_limits<float>::quiet_NaN());
}

/// What the roofline tool relies on.
void all_loops() {
    if (tested.mac_loop(1) < 1 || tested.mac_loop(1000) != 1000 * tested.mac_loop(1)) {
        fail("mac_loop: its count is not that of its rounds");
    }
    Buffer<uint8_t> data(8192);
    for (const size_t ahead : {size_t{0}, size_t{4096}}) {
        const uint64_t before = tested.read_loop(data.data(), data.bytes(), ahead);
        for (size_t i = 0; i < data.bytes(); i += 13) {
            data[i] ^= 1;
            if (tested.read_loop(data.data(), data.bytes(), ahead) == before) {
                fail("read_loop: leaves out byte " + std::to_string(i));
            }
            data[i] ^= 1;
            ++comparisons;
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    const trit_tier* tier = argc >= 2 ? trit_tier_by_name(argv[1]) : nullptr;
    if (tier != nullptr && argc == 3 && std::strcmp(argv[2], "selftest") == 0) {
        char message[256] = "";
        const int passed = trit_selftest(tier, message, sizeof(message));
        std::fprintf(stderr, "%s: %s\n", tier->name, passed != 0 ? "passed" : message);
        return passed != 0 ? 0 : 1;
    }
    if (tier == nullptr || !tier->supported()) {
        std::fprintf(stderr, "usage: compare_tiers TIER [FAULT], with a tier that this CPU runs\n");
        return 2;
    }
    faults::right = tested = *tier;
    if (argc == 3 && !faults::plant(argv[2], tested)) {
        std::fprintf(stderr, "there is no fault %s\n", argv[2]);
        return 2;
    }
    all_quantize();
    all_ends();
    all_products();
    all_loops();
    std::printf("%s: %ld comparisons, all equal\n", tested.name, comparisons);
    return 0;
}
