// SPDX-License-Identifier: MIT
// Made by trit/tune/codegen, version 5; changes here are lost. To make it again:
//     python -m trit.tune.codegen lookup --tier avx512 --registers 1 --steps 2 --rows 2560 --least-tokens 24
#include <cstring>

#include "kernels/tier.h"

namespace {
constexpr char kName[] = "lookup_avx512_t32_s2_r2560";
constexpr char kTier[] = "avx512";
}  // namespace

#ifdef TRIT_X86

#include <immintrin.h>

TRIT_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq")
namespace {

#include "kernels/lookup/avx512.h"

// Every byte of a panel of 2 bits holds the codes of four inputs: it is the number of an entry in a table of
// those inputs' partial sums, for 32 tokens at once. Codes are 0..2, so a table ends at byte 170.
constexpr int kTokens = 32;
// Steps of 16 inputs, four tables each, in one pass over the rows.
constexpr int kSteps = 2;
// Fewer are left to the tier's own kernel.
constexpr int kLeastTokens = 24;
// Rows that one set of tables serves.
constexpr int kRows = 2560;
constexpr size_t kEntry = kTokens * sizeof(int16_t);
constexpr size_t kTable = 171 * kEntry;
// 7 passes of 32 inputs, each at most 128, stay below 2^15.
constexpr int kPasses = 7;
static_assert(kTokens % kLanes == 0 && kPasses * kSteps * 16 * 128 < 32768, "made for another vocabulary");

struct Work {
    alignas(64) char tables[4 * kSteps * kTable];
    alignas(64) int16_t inputs[16 * kSteps * kTokens];
    alignas(64) int16_t sums[kRows * kTokens];
    alignas(64) int32_t wide[kRows * kTokens];
};

/// One table: sum of (code - 1) * x over inputs 0, 4, 8 and 12 of x, lowest bits first.
void build_table(const int16_t* x, char* table) {
    for (int part = 0; part < kTokens; part += kLanes) {
        const Sums x0 = load(x + part);
        const Sums x1 = load(x + part + 4 * kTokens);
        const Sums x2 = load(x + part + 8 * kTokens);
        const Sums x3 = load(x + part + 12 * kTokens);
        Sums s3 = subtract(zero(), add(add(x0, x1), add(x2, x3)));
        char* at = table + part * sizeof(int16_t);
        for (int u3 = 0; u3 < 3; ++u3, s3 = add(s3, x3)) {
            Sums s2 = s3;
            for (int u2 = 0; u2 < 3; ++u2, s2 = add(s2, x2)) {
                Sums s1 = s2;
                for (int u1 = 0; u1 < 3; ++u1, s1 = add(s1, x1)) {
                    char* entry = at + static_cast<size_t>(64 * u3 + 16 * u2 + 4 * u1) * kEntry;
                    const Sums middle = add(s1, x0);
                    store(entry, s1);
                    store(entry + kEntry, middle);
                    store(entry + 2 * kEntry, add(middle, x0));
                }
            }
        }
    }
}

/// Adds 32 inputs to the sums of all rows. panel: the inputs' first byte in the first panel.
template <bool kFirst>
void add_rows(const uint8_t* panel, size_t panel_bytes, int count, const char* tables, int16_t* sums) {
    for (int p = 0; p < count; ++p, panel += panel_bytes) {
        for (int line = 0; line < 4 * kSteps; ++line) {
            prefetch(panel + panel_bytes + 64 * line);
        }
        for (int r = 0; r < TRIT_PANEL_ROWS; ++r, sums += kTokens) {
            Sums s0 = kFirst ? zero() : load(sums);
            const char* entry = tables;
            uint32_t word = 0;
            std::memcpy(&word, panel + 4 * r, sizeof(word));
            entry = tables + (word << 6 & 0x3FC0);
            s0 = add(s0, load(entry));
            entry = tables + 1 * kTable + (word >> 2 & 0x3FC0);
            s0 = add(s0, load(entry));
            entry = tables + 2 * kTable + (word >> 10 & 0x3FC0);
            s0 = add(s0, load(entry));
            entry = tables + 3 * kTable + (word >> 18 & 0x3FC0);
            s0 = add(s0, load(entry));
            std::memcpy(&word, panel + 4 * r + 256, sizeof(word));
            entry = tables + 4 * kTable + (word << 6 & 0x3FC0);
            s0 = add(s0, load(entry));
            entry = tables + 5 * kTable + (word >> 2 & 0x3FC0);
            s0 = add(s0, load(entry));
            entry = tables + 6 * kTable + (word >> 10 & 0x3FC0);
            s0 = add(s0, load(entry));
            entry = tables + 7 * kTable + (word >> 18 & 0x3FC0);
            s0 = add(s0, load(entry));
            store(sums, s0);
        }
    }
}

void multiply(int64_t k, const uint8_t* panels, size_t panel_bytes, int count, const int8_t* q,
              size_t q_row_bytes, int m, void* memory, int32_t* c, size_t c_stride) {
    Work& work = *static_cast<Work*>(memory);
    const int rows = count * TRIT_PANEL_ROWS;
    const int64_t passes = k / (16 * kSteps);
    for (int64_t pass = 0; pass < passes; ++pass) {
        for (int step = 0; step < kSteps; ++step) {
            int16_t* x = work.inputs + 16 * kTokens * step;
            spread(q + 16 * (kSteps * pass + step), q_row_bytes, m, kTokens, x);
            for (int byte = 0; byte < 4; ++byte) {
                build_table(x + byte * kTokens, work.tables + static_cast<size_t>(4 * step + byte) * kTable);
            }
        }
        const uint8_t* panel = panels + 256 * kSteps * pass;
        if (pass % kPasses == 0) {
            add_rows<true>(panel, panel_bytes, count, work.tables, work.sums);
        } else {
            add_rows<false>(panel, panel_bytes, count, work.tables, work.sums);
        }
        if (pass % kPasses == kPasses - 1 || pass == passes - 1) {
            for (int i = 0; i < rows * kTokens; i += kLanes) {
                widen(load(work.sums + i), pass < kPasses, work.wide + i);
            }
        }
    }
    gather(work.wide, rows, kTokens, m, c, c_stride);
}

constexpr int kPanels = kRows / TRIT_PANEL_ROWS;
constexpr size_t kWorkBytes = sizeof(Work);

}  // namespace
TRIT_TARGET_END

#else

namespace {
constexpr int (*supported)() = trit_never;
constexpr int kTokens = 0;
constexpr int kLeastTokens = 0;
constexpr int kPanels = 0;
constexpr size_t kWorkBytes = 0;
constexpr trit_lookup_fn multiply = nullptr;
}  // namespace

#endif

extern "C" const trit_lookup_kernel trit_lookup_avx512_t32_s2_r2560 = {
    kName,        kTier,   TRIT_PACKING_2_BITS, supported, kTokens,
    kLeastTokens, kPanels, kWorkBytes,          multiply,  nullptr,
};
