// SPDX-License-Identifier: MIT
/// Writes panels: the order of bytes that every tier's panel kernels read. docs/formats.md draws it.
///
/// A vector is 64 bytes: 16 rows x 4 neighbouring inputs, so that four activations, repeated in every lane,
/// meet it without a shuffle and the sums stay in their rows' lanes. Several inputs' codes share a byte:
///
///     2 bits    one step = 16 inputs x 64 rows = 4 vectors (row groups 0..3). Field f (bits 2f+1:2f) of byte
///               4 r + j of vector g: row 16 g + r, input 4 f + j.
///     5 trits   one step = 20 inputs x 32 rows = 2 vectors; a panel is two halves of 32 rows, one after the
///               other. Byte = u0 + 3 u1 + 9 u2 + 27 u3 + 81 u4, where u_f is the code of input 4 f + j.
///
/// Steps follow each other; what is beyond k has code 0, which adds nothing whatever the activation is.
#include <cstring>

#include "trit.h"

namespace {

constexpr int kGroupRows = 16;
constexpr int kVector = 64;

uint32_t four(const uint8_t* codes) {
    uint32_t word = 0;
    std::memcpy(&word, codes, sizeof(word));
    return word;
}

/// One row's codes for one step, with what is missing as 0.
struct Step {
    uint8_t codes[20];
    const uint8_t* at(const uint8_t* row, int64_t k, int64_t first, int inputs) {
        if (first + inputs <= k) {
            return row + first;
        }
        std::memset(codes, 0, sizeof(codes));
        std::memcpy(codes, row + first, static_cast<size_t>(k - first));
        return codes;
    }
};

void store(uint8_t* to, uint32_t word) { std::memcpy(to, &word, sizeof(word)); }

void pack_2_bits(int64_t k, const uint8_t* row, int r, uint8_t* panel) {
    uint8_t* out = panel + r / kGroupRows * kVector + r % kGroupRows * 4;
    Step step;
    for (int64_t first = 0; first < k; first += 16, out += 4 * kVector) {
        const uint8_t* u = step.at(row, k, first, 16);
        // Whole words: a code has two bits, so nothing crosses from one byte to the next.
        store(out, four(u) | four(u + 4) << 2 | four(u + 8) << 4 | four(u + 12) << 6);
    }
}

void pack_5_trits(int64_t k, const uint8_t* row, int r, uint8_t* panel) {
    constexpr int kHalf = TRIT_PANEL_ROWS / 2;
    uint8_t* out = panel + static_cast<size_t>(r / kHalf) * (trit_panel_bytes(TRIT_PACKING_5_TRITS, k) / 2) +
                   r % kHalf / kGroupRows * kVector + r % kGroupRows * 4;
    Step step;
    for (int64_t first = 0; first < k; first += 20, out += 2 * kVector) {
        const uint8_t* u = step.at(row, k, first, 20);
        // Largest byte 2 * (1 + 3 + 9 + 27 + 81) = 242: no carry either.
        store(out, four(u) + 3 * four(u + 4) + 9 * four(u + 8) + 27 * four(u + 12) + 81 * four(u + 16));
    }
}

bool has_code_3(int64_t k, const uint8_t* row) {
    uint8_t found = 0;
    for (int64_t i = 0; i < k; ++i) {
        found |= static_cast<uint8_t>(row[i] & row[i] >> 1);
    }
    return (found & 1) != 0;
}

}  // namespace

size_t trit_panel_bytes(trit_packing packing, int64_t k) {
    const int64_t steps = packing == TRIT_PACKING_2_BITS ? (k + 15) / 16 : (k + 19) / 20;
    return static_cast<size_t>(steps) * 4 * kVector;
}

int trit_panel_pack(trit_packing packing, int64_t k, int rows, const uint8_t* codes, size_t row_bytes,
                    uint8_t* panel) {
    if (rows < TRIT_PANEL_ROWS) {
        std::memset(panel, 0, trit_panel_bytes(packing, k));
    }
    for (int r = 0; r < rows; ++r) {
        const uint8_t* row = codes + static_cast<size_t>(r) * row_bytes;
        if (packing == TRIT_PACKING_2_BITS) {
            pack_2_bits(k, row, r, panel);
        } else if (has_code_3(k, row)) {
            return 0;
        } else {
            pack_5_trits(k, row, r, panel);
        }
    }
    return 1;
}
