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
///     1 bit     one step = 32 inputs x 64 rows = 4 vectors, as 2 bits. Bit f of byte 4 r + j: row 16 g + r,
///               input 4 f + j; 1 is code 2. So a nibble is a byte of 2 bits, by a table of 16
///               (tiers/bits-inl.h).
///
/// Those of table indices have all rows side by side, so that a vector looks up one table for its rows. With
/// weights t = u - 1:
///
///     TL1       one step = 4 inputs = 1 vector. Low half of byte r: u0 + 3 u1 of inputs 0 and 1 of row r;
///               high half: of inputs 2 and 3.
///     TL2       one step = 24 inputs = 8 triples = 5 vectors. T = 9 t0 + 3 t1 + t2 of triple i: |T| is in
///               byte r of vector i / 2, even triples in the low half; bit 7 - i of byte r of vector 4 is 1
///               if T is negative.
///
/// Steps follow each other. What is beyond k has code 0, which adds nothing whatever the activation is; in
/// TL2 weight 0.
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
    uint8_t codes[32];
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

void pack_1_bit(int64_t k, const uint8_t* row, int r, uint8_t* panel) {
    uint8_t* out = panel + r / kGroupRows * kVector + r % kGroupRows * 4;
    Step step;
    for (int64_t first = 0; first < k; first += 32, out += 4 * kVector) {
        const uint8_t* u = step.at(row, k, first, 32);
        uint32_t word = 0;
        for (int f = 0; f < 8; ++f) {
            word |= four(u + 4 * f) >> 1 << f;  // a code's bit 0 is 0
        }
        store(out, word);
    }
}

void pack_tl1(int64_t k, const uint8_t* row, int r, uint8_t* panel) {
    Step step;
    for (int64_t first = 0; first < k; first += 4, panel += kVector) {
        const uint8_t* u = step.at(row, k, first, 4);
        panel[r] = static_cast<uint8_t>(u[0] + 3 * u[1] + 16 * (u[2] + 3 * u[3]));
    }
}

constexpr int kTl2Inputs = 24;  // of one step
constexpr int kTl2Triples = 8;

void pack_tl2(int64_t k, const uint8_t* row, int r, uint8_t* panel) {
    for (int64_t first = 0; first < k; first += kTl2Inputs, panel += 5 * kVector) {
        uint8_t u[kTl2Inputs];
        std::memset(u, 1, sizeof(u));
        std::memcpy(u, row + first, static_cast<size_t>(k - first < kTl2Inputs ? k - first : kTl2Inputs));
        unsigned halves[kTl2Triples];
        unsigned signs = 0;
        for (int i = 0; i < kTl2Triples; ++i) {
            const int t = 9 * u[3 * i] + 3 * u[3 * i + 1] + u[3 * i + 2] - 13;
            halves[i] = static_cast<unsigned>(t < 0 ? -t : t);
            signs |= t < 0 ? 0x80u >> i : 0u;
        }
        for (int v = 0; v < 4; ++v) {
            panel[kVector * v + r] = static_cast<uint8_t>(halves[2 * v] | halves[2 * v + 1] << 4);
        }
        panel[4 * kVector + r] = static_cast<uint8_t>(signs);
    }
}

/// Codes of the inputs that a byte of two indices stands for.
struct Codes {
    uint8_t tl1[256][4];
    uint8_t tl2[4][256][8];  ///< [signs][byte]: 6 codes
};

Codes make_codes() {
    Codes codes{};
    for (unsigned byte = 0; byte < 256; ++byte) {
        const unsigned halves[2] = {byte & 15, byte >> 4};
        for (int h = 0; h < 2; ++h) {
            codes.tl1[byte][2 * h] = static_cast<uint8_t>(halves[h] % 3);
            codes.tl1[byte][2 * h + 1] = static_cast<uint8_t>(halves[h] / 3);
            for (unsigned signs = 0; signs < 4; ++signs) {
                const bool negative = (signs >> (1 - h) & 1) != 0;
                const auto u = static_cast<uint8_t>(negative ? 13 - halves[h] : 13 + halves[h]);
                uint8_t* to = codes.tl2[signs][byte] + 3 * h;
                to[0] = static_cast<uint8_t>(u / 9);
                to[1] = static_cast<uint8_t>(u / 3 % 3);
                to[2] = static_cast<uint8_t>(u % 3);
            }
        }
    }
    return codes;
}

/// Whole steps of TL1, of TL2 and of 2 bits.
constexpr int kPiece = 48;
/// What may be written behind a piece.
constexpr int kPieceRest = 2;

/// A piece of a row; panel: its first vector.
void unpack_tl1(const Codes& table, const uint8_t* panel, int r, int64_t inputs, uint8_t* codes) {
    for (int64_t i = 0; i < inputs; i += 4, panel += kVector) {
        std::memcpy(codes + i, table.tl1[panel[r]], 4);
    }
}

void unpack_tl2(const Codes& table, const uint8_t* panel, int r, int64_t inputs, uint8_t* codes) {
    for (int64_t first = 0; first < inputs; first += kTl2Inputs, panel += 5 * kVector) {
        const unsigned signs = panel[4 * kVector + r];
        for (int v = 0; v < 4; ++v, codes += 6) {
            std::memcpy(codes, table.tl2[signs >> (6 - 2 * v) & 3][panel[kVector * v + r]], 8);
        }
    }
}

/// Whether a row has codes that a packing has no room for: 3, and 1 where there are signs alone.
bool has_others(trit_packing packing, int64_t k, const uint8_t* row) {
    const uint8_t twos = packing == TRIT_PACKING_1_BIT ? 1 : 0;
    uint8_t found = 0;
    for (int64_t i = 0; i < k; ++i) {
        found |= static_cast<uint8_t>(row[i] & (row[i] >> 1 | twos));
    }
    return (found & 1) != 0;
}

}  // namespace

size_t trit_panel_bytes(trit_packing packing, int64_t k) {
    const auto steps = [k](int inputs) { return static_cast<size_t>((k + inputs - 1) / inputs); };
    switch (packing) {
        case TRIT_PACKING_2_BITS:
            return steps(16) * 4 * kVector;
        case TRIT_PACKING_5_TRITS:
            return steps(20) * 4 * kVector;
        case TRIT_PACKING_1_BIT:
            return steps(32) * 4 * kVector;
        case TRIT_PACKING_TL1:
            return steps(4) * kVector;
        default:
            return steps(kTl2Inputs) * 5 * kVector;
    }
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
            continue;
        }
        if (has_others(packing, k, row)) {
            return 0;
        }
        const auto pack = packing == TRIT_PACKING_5_TRITS ? pack_5_trits
                          : packing == TRIT_PACKING_1_BIT ? pack_1_bit
                          : packing == TRIT_PACKING_TL1   ? pack_tl1
                                                          : pack_tl2;
        pack(k, row, r, panel);
    }
    return 1;
}

void trit_panel_to_2_bits(trit_packing packing, int64_t k, const uint8_t* panel, uint8_t* out) {
    static const Codes table = make_codes();
    const size_t piece_bytes = trit_panel_bytes(packing, kPiece);
    const auto unpack = packing == TRIT_PACKING_TL1 ? unpack_tl1 : unpack_tl2;
    for (int64_t first = 0; first < k; first += kPiece) {
        const int64_t inputs = k - first < kPiece ? k - first : kPiece;
        for (int r = 0; r < TRIT_PANEL_ROWS; ++r) {
            uint8_t codes[kPiece + kPieceRest];
            unpack(table, panel, r, inputs, codes);
            pack_2_bits(inputs, codes, r, out);
        }
        panel += piece_bytes;
        out += trit_panel_bytes(TRIT_PACKING_2_BITS, kPiece);
    }
}
