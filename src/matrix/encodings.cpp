// SPDX-License-Identifier: MIT
#include "matrix/encodings.h"

#include <cstring>

#include "trit.h"

namespace trit {
namespace {

/// i2_s: docs/formats.md.
void unpack_i2_s(int64_t k, const uint8_t* row, uint8_t* codes) {
    constexpr int kBytes = TRIT_I2_S_BLOCK_BYTES;
    for (int64_t block = 0; block < k / TRIT_I2_S_BLOCK; ++block, row += kBytes, codes += TRIT_I2_S_BLOCK) {
        for (int p = 0; p < kBytes; ++p) {
            codes[p] = row[p] >> 6;
            codes[kBytes + p] = row[p] >> 4 & 3;
            codes[2 * kBytes + p] = row[p] >> 2 & 3;
            codes[3 * kBytes + p] = row[p] & 3;
        }
    }
}

/// tq2_0: 256 weights = two runs of 32 bytes, then the scale. Bits 2 l + 1 : 2 l of byte p of a run hold the
/// run's weight 32 l + p.
void unpack_tq2_0(int64_t k, const uint8_t* row, uint8_t* codes) {
    for (int64_t block = 0; block < k / 256; ++block, row += 66) {
        for (int run = 0; run < 2; ++run, codes += 128) {
            for (int p = 0; p < 32; ++p) {
                const uint8_t byte = row[32 * run + p];
                codes[p] = byte & 3;
                codes[32 + p] = byte >> 2 & 3;
                codes[64 + p] = byte >> 4 & 3;
                codes[96 + p] = byte >> 6;
            }
        }
    }
}

/// tq1_0: a byte is a fixed-point fraction of 2^8; its trits come out one after the other, highest first, as
/// the whole part of three times what is left.
template <int kWidth, int kTrits>
uint8_t* unpack_fractions(const uint8_t* bytes, uint8_t* codes) {
    uint8_t left[kWidth];
    std::memcpy(left, bytes, kWidth);
    for (int n = 0; n < kTrits; ++n) {
        for (int p = 0; p < kWidth; ++p) {
            const unsigned three = 3u * left[p];
            *codes++ = static_cast<uint8_t>(three >> 8);
            left[p] = static_cast<uint8_t>(three);
        }
    }
    return codes;
}

/// tq1_0: 256 weights = 32 bytes of 5 trits, 16 bytes of 5, 4 bytes of 4, then the scale.
void unpack_tq1_0(int64_t k, const uint8_t* row, uint8_t* codes) {
    for (int64_t block = 0; block < k / 256; ++block, row += 54) {
        codes = unpack_fractions<32, 5>(row, codes);
        codes = unpack_fractions<16, 5>(row + 32, codes);
        codes = unpack_fractions<4, 4>(row + 48, codes);
    }
}

/// q2_0: the scale, then 16 bytes with 4 neighbouring weights each, lowest bits first. Code 3 is +2.
void unpack_q2_0(int64_t k, const uint8_t* row, uint8_t* codes) {
    for (int64_t block = 0; block < k / 64; ++block, row += 18) {
        for (int p = 0; p < 16; ++p, codes += 4) {
            // The four fields, each moved to a byte of its own.
            const uint32_t byte = row[2 + p];
            const uint32_t word = (byte | byte << 6 | byte << 12 | byte << 18) & 0x03030303u;
            codes[0] = static_cast<uint8_t>(word);
            codes[1] = static_cast<uint8_t>(word >> 8);
            codes[2] = static_cast<uint8_t>(word >> 16);
            codes[3] = static_cast<uint8_t>(word >> 24);
        }
    }
}

/// q1_0: the scale, then a bit for each weight, lowest first: 1 is +1, 0 is -1.
void unpack_q1_0(int64_t k, const uint8_t* row, uint8_t* codes) {
    for (int64_t block = 0; block < k / 128; ++block, row += 18) {
        for (int p = 0; p < 16; ++p, codes += 8) {
            // Each bit to bit 1 of a byte of its own: the lower four, then the upper four.
            const uint32_t byte = row[2 + p];
            for (int half = 0; half < 2; ++half) {
                const uint32_t four = byte >> (4 * half) & 15;
                const uint32_t word = (four << 1 | four << 8 | four << 15 | four << 22) & 0x02020202u;
                codes[4 * half] = static_cast<uint8_t>(word);
                codes[4 * half + 1] = static_cast<uint8_t>(word >> 8);
                codes[4 * half + 2] = static_cast<uint8_t>(word >> 16);
                codes[4 * half + 3] = static_cast<uint8_t>(word >> 24);
            }
        }
    }
}

/// Codes of every index of tl1 and tl2.
struct IndexTables {
    uint8_t pair[16][2];        ///< 3 u0 + u1; 9 to 15 stand for no weights
    uint8_t triplet[2][16][4];  ///< [sign][|9 t0 + 3 t1 + t2|]; 14, 15 and -0 stand for no weights
};

constexpr IndexTables index_tables() {
    IndexTables tables{};
    for (int i = 0; i < 16; ++i) {
        tables.pair[i][0] = static_cast<uint8_t>(i < 9 ? i / 3 : 3);
        tables.pair[i][1] = static_cast<uint8_t>(i < 9 ? i % 3 : 3);
        for (int negative = 0; negative < 2; ++negative) {
            const bool valid = i < 14 && (i > 0 || negative == 0);
            const int digits = negative != 0 ? 13 - i : 13 + i;  // 9 u0 + 3 u1 + u2
            uint8_t* codes = tables.triplet[negative][i];
            codes[0] = static_cast<uint8_t>(valid ? digits / 9 : 3);
            codes[1] = static_cast<uint8_t>(valid ? digits / 3 % 3 : 3);
            codes[2] = static_cast<uint8_t>(valid ? digits % 3 : 3);
        }
    }
    return tables;
}

constexpr IndexTables kTables = index_tables();

/// tl1: byte i holds the pairs (4 i, 4 i + 1) and (4 i + 2, 4 i + 3), low half first.
void unpack_tl1(int64_t k, const uint8_t* row, uint8_t* codes) {
    for (int64_t i = 0; i < k / 4; ++i, codes += 4) {
        std::memcpy(codes, kTables.pair[row[i] & 15], 2);
        std::memcpy(codes + 2, kTables.pair[row[i] >> 4], 2);
    }
}

/// tl2: 128 weights in 27 bytes: 42 triplets, two to a byte; the pair that is left and two signs in byte 21;
/// the signs of triplets 0 to 39, lowest bit first.
void unpack_tl2(int64_t k, const uint8_t* row, uint8_t* codes) {
    for (int64_t block = 0; block < k / 128; ++block, row += 27, codes += 128) {
        uint64_t signs = static_cast<uint64_t>(row[21] >> 4 & 3) << 40;
        for (int i = 0; i < 5; ++i) {
            signs |= static_cast<uint64_t>(row[22 + i]) << (8 * i);
        }
        for (int i = 0; i < 42; ++i, signs >>= 1) {
            // Four bytes are one store; the fourth is overwritten by what follows.
            std::memcpy(codes + 3 * i, kTables.triplet[signs & 1][row[i / 2] >> (i % 2 * 4) & 15], 4);
        }
        const bool spare_bits = row[21] >> 6 != 0;
        std::memcpy(codes + 126, kTables.pair[spare_bits ? 15 : row[21] & 15], 2);
    }
}

constexpr FieldLayout kI2SFields = {1, TRIT_I2_S_BLOCK_BYTES, {6, 4, 2, 0}};
constexpr FieldLayout kTq2Fields = {2, 66, {0, 2, 4, 6}};
constexpr FieldLayout kNoFields = {};

constexpr Encoding kEncodings[] = {
    {"i2_s", TRIT_I2_S_BLOCK, TRIT_I2_S_BLOCK_BYTES, -1, 32, false, unpack_i2_s, kI2SFields},
    {"tl1", 32, 8, -1, 64, false, unpack_tl1},
    {"tl2", 128, 27, -1, 64, false, unpack_tl2},
    {"tq2_0", 256, 66, 64, 0, false, unpack_tq2_0, kTq2Fields},
    {"tq1_0", 256, 54, 52, 0, false, unpack_tq1_0},
    {"q2_0", 64, 18, 0, 0, true, unpack_q2_0},
    {"q1_0", 128, 18, 0, 0, false, unpack_q1_0, kNoFields, true},
};

}  // namespace

float Encoding::tensor_scale(const uint8_t* data, int64_t weights) const {
    float scale = 0.0f;
    std::memcpy(&scale, data + row_bytes(weights), sizeof(scale));
    return scale;
}

uint16_t Encoding::scale(const uint8_t* row, int64_t block_index) const {
    uint16_t half = 0;
    std::memcpy(&half, row + static_cast<size_t>(block_index) * block_bytes + scale_at, sizeof(half));
    return half;
}

const Encoding* find_encoding(const char* name) {
    for (const Encoding& encoding : kEncodings) {
        if (std::strcmp(encoding.name, name) == 0) {
            return &encoding;
        }
    }
    return nullptr;
}

}  // namespace trit
