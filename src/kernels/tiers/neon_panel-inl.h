// SPDX-License-Identifier: MIT
/// Panel kernels of the ARM tiers. Included after neon_common-inl.h and one of the tiles' headers, inside the
/// target region and the anonymous namespace of a tier, which defines before:
///
///     TokenSums                         one token's sums of 4 rows
///     add_step(TokenSums&, bytes, act)  adds 4 rows x 16 inputs
///     int32x4_t total(TokenSums)
///     kTokenSteps                       how often add_step may be called before total
///     unpack_step(panel, out)           one step's 16 inputs x 64 rows, a byte for each code
///     tiles<M>(fours, codes, q, q_row_bytes, first, c)
///                                       `fours` x 4 unpacked inputs x M tokens, added to c unless first
///     few<M>(fours, panel, ahead, q, q_row_bytes, first, c)
///                                       the same from the panel's bytes; asks for what is at `ahead`
///     kTileTokens                       the largest M

#include "kernels/tiers/bits-inl.h"

/// How a panel's 256 bytes become steps of 16 inputs, four fields of two bits in a byte.
struct TwoBits {
    static constexpr int kSteps = 1;
    template <int kStep>
    static uint8x16_t fields(uint8x16_t bytes) {
        return bytes;
    }
};
struct OneBit {
    static constexpr int kSteps = 2;
    template <int kStep>
    static uint8x16_t fields(uint8x16_t bytes) {
        const uint8x16_t nibbles = kStep == 0 ? vandq_u8(bytes, vdupq_n_u8(15)) : vshrq_n_u8(bytes, 4);
        return vqtbl1q_u8(vld1q_u8(kNibbles), nibbles);
    }
};

/// One token: 16 rows (a cache line of each step) after 16 rows, a few steps at a time. Meanwhile the next
/// steps' lines are asked for in their order in memory. Where a byte has two steps, 8 rows after 8 rows: each
/// step has sums of its own, and more of them would not stay in registers.
template <typename Bits>
void one_token(int64_t k, const uint8_t* panel, const int8_t* q, int32_t* c) {
    constexpr int kInputs = 16 * Bits::kSteps;
    constexpr int kRegisters = 4 / Bits::kSteps;
    const int64_t steps = k / kInputs;
    for (int64_t step = 0; step < steps; step += kTokenSteps) {
        const int64_t count = steps - step < kTokenSteps ? steps - step : kTokenSteps;
        const uint8_t* ahead = panel + (step + count) * 256;
        for (int row = 0; row < TRIT_PANEL_ROWS; row += 4 * kRegisters) {
            const uint8_t* bytes = panel + step * 256 + 4 * row;
            const int8_t* x = q + step * kInputs;
            TokenSums sums[4] = {};
            for (int64_t i = 0; i < count; ++i, bytes += 256, ahead += 16 * kRegisters, x += kInputs) {
                prefetch(ahead);
                const int8x16_t act[2] = {load(x), load(x + kInputs - 16)};
                TRIT_UNROLL
                for (int r = 0; r < kRegisters; ++r) {
                    const uint8x16_t packed = load(bytes + 16 * r);
                    add_step(sums[r], Bits::template fields<0>(packed), act[0]);
                    if constexpr (Bits::kSteps == 2) {
                        add_step(sums[kRegisters + r], Bits::template fields<1>(packed), act[1]);
                    }
                }
            }
            TRIT_UNROLL
            for (int r = 0; r < kRegisters; ++r) {
                int32x4_t all = total(sums[r]);
                if constexpr (Bits::kSteps == 2) {
                    all = vaddq_s32(all, total(sums[kRegisters + r]));
                }
                add_to(c + row + 4 * r, step == 0, all);
            }
        }
    }
}

/// A chunk of `fours` x 4 inputs.
struct Chunk {
    int fours;
    bool first;
    const uint8_t* panel;
    const uint8_t* ahead;  ///< what comes behind it
};

/// As many tokens as fit in one tile: codes are cut out of the panel's bytes where they are needed. More
/// tokens share codes that are written down once.
template <int M>
void few_tokens(const Chunk& chunk, int count, const int8_t* q, size_t q_row_bytes, int32_t* c) {
    if constexpr (M > 2) {
        if (count < M) {
            return few_tokens<M - 1>(chunk, count, q, q_row_bytes, c);
        }
    }
    few<M>(chunk.fours, chunk.panel, chunk.ahead, q, q_row_bytes, chunk.first, c);
}

/// In tiles of nearly the same size (8 tokens are 4 + 4, not 6 + 2): `count` is 2 to M.
template <int M>
void tiles_of(int count, int fours, const int8_t* unpacked, const int8_t* q, size_t q_row_bytes, bool first,
              int32_t* c) {
    if constexpr (M > 2) {
        if (count < M) {
            return tiles_of<M - 1>(count, fours, unpacked, q, q_row_bytes, first, c);
        }
    }
    tiles<M>(fours, unpacked, q, q_row_bytes, first, c);
}

void many_tokens(const Chunk& chunk, int m, const int8_t* q, size_t q_row_bytes, int32_t* c) {
    alignas(64) int8_t unpacked[kChunk * TRIT_PANEL_ROWS];
    for (int l = 0; l < chunk.fours; l += 4) {
        unpack_step(chunk.panel + 64 * l, unpacked + 4 * l * TRIT_PANEL_ROWS);
    }
    const int count = (m + kTileTokens - 1) / kTileTokens;
    for (int t = 0; t < count; ++t) {
        const int from = m * t / count;
        tiles_of<kTileTokens>(m * (t + 1) / count - from, chunk.fours, unpacked,
                              q + static_cast<size_t>(from) * q_row_bytes, q_row_bytes, chunk.first,
                              c + from * TRIT_PANEL_ROWS);
    }
}

void some_tokens(const Chunk& chunk, int m, const int8_t* q, size_t q_row_bytes, int32_t* c) {
    if (m <= kTileTokens) {
        few_tokens<kTileTokens>(chunk, m, q, q_row_bytes, c);
    } else {
        many_tokens(chunk, m, q, q_row_bytes, c);
    }
}

void panel_2_bits(int64_t k, const uint8_t* panel, const int8_t* q, size_t q_row_bytes, int m, int32_t* c) {
    if (m == 1) {
        return one_token<TwoBits>(k, panel, q, c);
    }
    for (int64_t l = 0; l < k && m > 0; l += kChunk) {
        const int inputs = static_cast<int>(k - l < kChunk ? k - l : kChunk);
        const uint8_t* bytes = panel + l * (TRIT_PANEL_ROWS / 4);
        some_tokens({inputs / 4, l == 0, bytes, bytes + inputs * (TRIT_PANEL_ROWS / 4)}, m, q + l,
                    q_row_bytes, c);
    }
}

/// Several tokens: a chunk becomes one of 2 bits, which costs a fraction of what its products do.
void panel_1_bit(int64_t k, const uint8_t* panel, const int8_t* q, size_t q_row_bytes, int m, int32_t* c) {
    if (m == 1) {
        return one_token<OneBit>(k, panel, q, c);
    }
    alignas(64) uint8_t two_bits[kChunk * TRIT_PANEL_ROWS / 4];
    for (int64_t l = 0; l < k && m > 0; l += kChunk) {
        const int inputs = static_cast<int>(k - l < kChunk ? k - l : kChunk);
        const uint8_t* bytes = panel + l * (TRIT_PANEL_ROWS / 8);
        uint8_t* out = two_bits;
        for (int step = 0; step < inputs; step += 32, bytes += 256, out += 2 * 256) {
            for (int r = 0; r < 256; r += 16) {
                const uint8x16_t packed = load(bytes + r);
                vst1q_u8(out + r, OneBit::fields<0>(packed));
                vst1q_u8(out + 256 + r, OneBit::fields<1>(packed));
            }
        }
        some_tokens({inputs / 4, l == 0, two_bits, bytes}, m, q + l, q_row_bytes, c);
    }
}

/// As many lanes as the prefill tile has. Each takes its neighbour for activations, so that no product is
/// computed once for all.
int64_t mac_loop(int64_t rounds) {
    constexpr int kLanes = kTileRegisters * kTileTokens;
    volatile int8_t seed = 1;
    const int8x16_t a = vdupq_n_s8(seed);
    Lane acc[kLanes];
    TRIT_UNROLL_24
    for (int i = 0; i < kLanes; ++i) {
        acc[i] = multiply_add(Lane{}, a, vdupq_n_s8(static_cast<int8_t>(seed + i)));
    }
    for (int64_t round = 0; round < rounds; ++round) {
        TRIT_UNROLL_24
        for (int i = 0; i < kLanes; ++i) {
            acc[i] = multiply_add(acc[i], a, as_bytes(acc[(i + 1) % kLanes]));
        }
    }
    int32x4_t all = widen(acc[0]);
    TRIT_UNROLL_24
    for (int i = 1; i < kLanes; ++i) {
        all = veorq_s32(all, widen(acc[i]));
    }
    volatile int32_t sink = vgetq_lane_s32(all, 0) ^ vgetq_lane_s32(all, 3);
    (void)sink;
    return rounds * kLanes * kMultiplyAddMacs;
}
