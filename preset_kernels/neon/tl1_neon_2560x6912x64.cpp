// SPDX-License-Identifier: MIT
// Made by trit/tune/codegen, version 5; changes here are lost. To make it again:
//     python -m trit.tune.codegen tl1 --tier neon --BM 2560 --BK 6912 --bm 64
#include <cstring>

#include "kernels/tier.h"

namespace {
constexpr char kName[] = "tl1_neon_2560x6912x64";
constexpr char kTier[] = "neon";
}  // namespace

#ifdef TRIT_ARM64

#include <arm_neon.h>

TRIT_TARGET_BEGIN(TRIT_ARM_TARGET_SIMD)
namespace {

#include "kernels/lookup/table_neon.h"

// An index stands for 2 weights: it is the number of an entry in a table of these inputs' sums, which a byte
// shuffle looks up for all rows of a register at once.
constexpr int kTokens = 4;
constexpr int kLeastTokens = 1;
// BM: rows of one call, for which the tables are built once.
constexpr int kRows = 2560;
// BK: inputs whose tables are there at the same time.
constexpr int kInputs = 6912;
// bm: rows whose sums are in registers.
constexpr int kRegisters = 64 / kRegisterRows;
// Prefetch.
constexpr size_t kAhead = 4096;

// A panel's step: 32 inputs.
constexpr int kGroup = 2;
constexpr int kStepInputs = 32;
constexpr int kStepBytes = 512;
constexpr int kMostSteps = kInputs / kStepInputs;
// Two parts of 16 entries each.
constexpr int kTableBytes = 32;
// x = low + 16 high with both in -8..8: an entry is at most 8 * 2.
// Steps whose sums fit into 16 bits: an input adds at most 128.
constexpr int64_t kWidenSteps = 32767 / (128 * kStepInputs);
static_assert(kInputs % kStepInputs == 0, "a step is taken as a whole");

struct Work {
    alignas(64) int8_t x[kMostSteps * kStepInputs];
    alignas(64) int8_t tables[kTokens][kMostSteps * (kStepInputs / kGroup) * kTableBytes];
};

// Input i's weight in each entry.
alignas(16) constexpr int8_t kWeights[kGroup][16] = {
    {-1, 0, 1, -1, 0, 1, -1, 0, 1, 0, 0, 0, 0, 0, 0, 0},
    {-1, -1, -1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0},
};

/// q: `inputs` inputs; those missing in the last step count as 0.
void build_tables(const int8_t* q, int64_t inputs, int8_t* x, int8_t* table) {
    const int64_t steps = (inputs + kStepInputs - 1) / kStepInputs;
    std::memset(x + (steps - 1) * kStepInputs, 0, kStepInputs);
    std::memcpy(x, q, static_cast<size_t>(inputs));
    for (int64_t i = 0; i < steps * kStepInputs; i += kGroup, table += kTableBytes) {
        int8_t low[kGroup];
        int8_t high[kGroup];
        for (int j = 0; j < kGroup; ++j) {
            high[j] = static_cast<int8_t>((x[i + j] + 8) >> 4);
            low[j] = static_cast<int8_t>(x[i + j] - 16 * high[j]);
        }
        Entries lows = times(low[0], kWeights[0]);
        Entries highs = times(high[0], kWeights[0]);
        for (int j = 1; j < kGroup; ++j) {
            lows = add_entries(lows, times(low[j], kWeights[j]));
            highs = add_entries(highs, times(high[j], kWeights[j]));
        }
        store_entries(table, lows);
        store_entries(table + 16, highs);
    }
}

/// Adds vectors [kFrom, kTo) of a step to the sums of kRegisters * kRegisterRows rows.
template <int kFrom, int kTo>
inline void add_vectors(const uint8_t* panel, const int8_t* tables, Words* sums) {
    static_assert(2 * (kTo - kFrom) * kGroup * 8 <= 127, "sums of 8 bits would wrap");
    Bytes low[kRegisters];
    Bytes high[kRegisters];
    TRIT_UNROLL
    for (int i = 2 * kFrom; i < 2 * kTo; ++i) {
        const Bytes table = load_table(tables + kTableBytes * i);
        const Bytes second = load_table(tables + kTableBytes * i + 16);
        TRIT_UNROLL
        for (int r = 0; r < kRegisters; ++r) {
            const Bytes vector = load(panel + 64 * (i / 2) + kRegisterRows * r);
            const Bytes index = i % 2 == 0 ? low_half(vector) : high_half(vector);
            const Bytes l = look_up(table, index);
            const Bytes h = look_up(second, index);
            low[r] = i == 2 * kFrom ? l : add(low[r], l);
            high[r] = i == 2 * kFrom ? h : add(high[r], h);
        }
    }
    TRIT_UNROLL
    for (int r = 0; r < kRegisters; ++r) {
        sums[r] = add_nibbles(sums[r], low[r], high[r]);
    }
}

/// Adds a step of a panel.
inline void add_step(const uint8_t* panel, const int8_t* tables, Words* sums) {
    add_vectors<0, 2>(panel, tables, sums);
    add_vectors<2, 4>(panel, tables, sums);
    add_vectors<4, 6>(panel, tables, sums);
    add_vectors<6, 8>(panel, tables, sums);
}

/// Adds `steps` steps of a panel to c. ahead: what is read after them.
void add_panel(const uint8_t* panel, const uint8_t* ahead, int64_t steps, const int8_t* tables, bool first,
               int32_t* c) {
    const size_t bytes = static_cast<size_t>(steps) * kStepBytes;
    for (int row = 0; row < TRIT_PANEL_ROWS; row += kRegisters * kRegisterRows) {
        for (int64_t from = 0; from < steps; from += kWidenSteps) {
            const int64_t to = steps - from < kWidenSteps ? steps : from + kWidenSteps;
            Words sums[kRegisters];
            TRIT_UNROLL
            for (int r = 0; r < kRegisters; ++r) {
                sums[r] = zero_words();
            }
            for (int64_t step = from; step < to; ++step) {
                const size_t at = static_cast<size_t>(step) * kStepBytes;
                const size_t soon = at + kAhead;
                const uint8_t* line = soon < bytes ? panel + soon : ahead + (soon - bytes);
                TRIT_UNROLL
                for (int i = 0; i < kStepBytes; i += 64) {
                    prefetch(line + i);
                }
                add_step(panel + at + row, tables + step * (kStepInputs / kGroup) * kTableBytes, sums);
            }
            TRIT_UNROLL
            for (int r = 0; r < kRegisters; ++r) {
                widen(sums[r], first && from == 0, c + row + kRegisterRows * r);
            }
        }
    }
}

void multiply(int64_t k, const uint8_t* panels, size_t panel_bytes, int count, const int8_t* q,
              size_t q_row_bytes, int m, void* memory, int32_t* c, size_t c_stride) {
    Work& work = *static_cast<Work*>(memory);
    for (int64_t from = 0; from < k; from += kInputs) {
        const int64_t inputs = k - from < kInputs ? k - from : kInputs;
        const int64_t steps = (inputs + kStepInputs - 1) / kStepInputs;
        for (int j = 0; j < m; ++j) {
            build_tables(q + static_cast<size_t>(j) * q_row_bytes + from, inputs, work.x, work.tables[j]);
        }
        const uint8_t* panel = panels + from / kStepInputs * kStepBytes;
        for (int p = 0; p < count; ++p, panel += panel_bytes) {
            for (int j = 0; j < m; ++j) {
                int32_t* sums = c + static_cast<size_t>(j) * c_stride + p * TRIT_PANEL_ROWS;
                add_panel(panel, panel + panel_bytes, steps, work.tables[j], from == 0, sums);
            }
        }
    }
}

/// Each entry's weights as digits of base 4, that of the first input lowest. With 1 added to every digit they
/// are codes u of 2 bits.
alignas(16) constexpr int8_t kDigits[16] = {-5, -4, -3, -1, 0, 1, 3, 4, 5, 0, 0, 0, 0, 0, 0, 0};
constexpr int8_t kOnes = 5;

/// 16 inputs of a panel as a step of 2 bits.
void piece_to_2_bits(const uint8_t* panel, uint8_t* out) {
    constexpr int kIndexes = 16 / kGroup;
    const Bytes table = load_table(kDigits);
    const Bytes ones = every(kOnes);
    for (int row = 0; row < TRIT_PANEL_ROWS; row += kRegisterRows) {
        Bytes u[kIndexes];
        TRIT_UNROLL_24
        for (int i = 0; i < kIndexes; ++i) {
            const uint8_t* vectors = panel + i / 8 * 256 + row;
            const Bytes vector = load(vectors + 64 * (i % 8 / 2));
            const Bytes digits = look_up(table, i % 2 == 0 ? low_half(vector) : high_half(vector));
            u[i] = add(digits, ones);
        }
        {
            const Bytes bytes[4] = {
                merge(move<0, 0>(u[0]), move<0, 1>(u[2]), move<0, 2>(u[4]), move<0, 3>(u[6])),
                merge(move<1, 0>(u[0]), move<1, 1>(u[2]), move<1, 2>(u[4]), move<1, 3>(u[6])),
                merge(move<0, 0>(u[1]), move<0, 1>(u[3]), move<0, 2>(u[5]), move<0, 3>(u[7])),
                merge(move<1, 0>(u[1]), move<1, 1>(u[3]), move<1, 2>(u[5]), move<1, 3>(u[7])),
            };
            store_rows(out + 4 * row, bytes);
        }
    }
}

void to_2_bits(int64_t k, const uint8_t* panel, uint8_t* out) {
    constexpr int64_t kStep = 16;
    constexpr int64_t kOutBytes = 4 * 64;
    int64_t steps = k / kStep;
    for (; steps > 0; --steps, panel += 256, out += kOutBytes) {
        piece_to_2_bits(panel, out);
    }
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
constexpr trit_unpack_fn to_2_bits = nullptr;
}  // namespace

#endif

extern "C" const trit_lookup_kernel trit_tl1_neon_2560x6912x64 = {
    kName,        kTier,   TRIT_PACKING_TL1, supported, kTokens,
    kLeastTokens, kPanels, kWorkBytes,       multiply,  to_2_bits,
};
