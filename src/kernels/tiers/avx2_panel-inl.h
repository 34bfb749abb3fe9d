// SPDX-License-Identifier: MIT
/// Panel kernels of the 256-bit tiers. Included inside the target region and the anonymous namespace of a
/// tier, which defines before:
///
///     Lane                       what products are added up in
///     Lane add(Lane, u, act)     32 products of codes and activations, added to a lane of 8 rows
///     Lane fold(Lane, Lane)      sums, and four times sums, as one lane of sums
///     int32 lanes widen(Lane)    a lane's sums per row
///     kMostFours                 how often `add` may be called with codes of 2 bits before `widen`
///
/// A register is half a vector of the panel: 8 rows x 4 inputs. Sums of a chunk of inputs go to c, in memory,
/// so that the rows of a panel can be visited one register after the other while its bytes are read in one
/// stream.

#include "kernels/tiers/bits-inl.h"
#include "kernels/tiers/passes-inl.h"

constexpr int kTileRegisters = 2;  // 16 rows
constexpr int kTileTokens = 6;
constexpr size_t kPanelAhead = 8192;
constexpr int64_t kOneTokenSteps = 8;
constexpr int kFewTokens = 16;

__m256i yload(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
void ystore(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }

/// Four neighbouring activations in every lane.
__m256i repeat_four(const int8_t* q) {
    int32_t word = 0;
    std::memcpy(&word, q, sizeof(word));
    return _mm256_set1_epi32(word);
}

void add_to(int32_t* c, bool first, __m256i sums) {
    ystore(c, first ? sums : _mm256_add_epi32(yload(c), sums));
}

/// How a panel's 256 bytes become steps of 16 inputs, four fields of two bits in a byte.
struct TwoBits {
    static constexpr int kSteps = 1;
    template <int kStep>
    static __m256i fields(__m256i bytes) {
        return bytes;
    }
};
struct OneBit {
    static constexpr int kSteps = 2;
    template <int kStep>
    static __m256i fields(__m256i bytes) {
        const __m256i table =
            _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(kNibbles)));
        const __m256i nibbles = kStep == 0 ? bytes : _mm256_srli_epi16(bytes, 4);
        return _mm256_shuffle_epi8(table, _mm256_and_si256(nibbles, _mm256_set1_epi8(0x0F)));
    }
};

/// One step of `one_token`: two fields after the other two, loaded again: with all four activations there are
/// too few registers.
template <typename Bits, int kStep, int kRegisters>
TRIT_INLINE void one_step(const uint8_t* bytes, const int8_t* x, Lane (&ones)[kRegisters],
                          Lane (&fours)[kRegisters]) {
    const __m256i low = _mm256_set1_epi8(0x03);
    const __m256i high = _mm256_set1_epi8(0x0C);
    TRIT_UNROLL
    for (int shift = 0; shift <= 4; shift += 4) {
        const __m256i act[2] = {repeat_four(x + 2 * shift), repeat_four(x + 2 * shift + 4)};
        TRIT_UNROLL
        for (int g = 0; g < kRegisters; ++g) {
            const __m256i codes =
                _mm256_srli_epi16(Bits::template fields<kStep>(yload(bytes + 32 * g)), shift);
            ones[g] = add(ones[g], _mm256_and_si256(codes, low), act[0]);
            fours[g] = add(fours[g], _mm256_and_si256(codes, high), act[1]);
        }
    }
}

/// One token: 32 rows x 16 inputs at a time, so that a repeated activation serves four registers. Codes of
/// the two upper fields are shifted down once; those of fields 1 and 3 stay at four times their value, in
/// lanes of their own, until these are folded into the others. A few steps only, so that the lines of all
/// rows are read nearly in the order in which they are in memory.
template <typename Bits>
void one_token(int64_t k, const uint8_t* panel, const int8_t* q, int32_t* c) {
    constexpr int kRegisters = 4;
    constexpr int kInputs = 16 * Bits::kSteps;  // of 256 bytes
    constexpr int64_t kFoldSteps =
        (kMostFours / 8 < kOneTokenSteps ? kMostFours / 8 : kOneTokenSteps) / Bits::kSteps;
    static_assert(kFoldSteps >= 1, "fields 1 and 3 count 4 x, twice in a step; a step must fit");
    // A step adds to a folded lane what it adds to `fours`, divided by two: twice as many steps fit.
    constexpr int64_t kWidenSteps = 2 * kFoldSteps;
    const int64_t steps = k / kInputs;
    for (int64_t step = 0; step < steps; step += kWidenSteps) {
        const int64_t end = steps - step < kWidenSteps ? steps : step + kWidenSteps;
        for (int r = 0; r < TRIT_PANEL_ROWS; r += 8 * kRegisters) {
            Lane ones[kRegisters] = {};
            for (int64_t from = step; from < end; from += kFoldSteps) {
                const int64_t to = end - from < kFoldSteps ? end : from + kFoldSteps;
                Lane fours[kRegisters] = {};
                const uint8_t* bytes = panel + from * 256 + 4 * r;
                const int8_t* x = q + from * kInputs;
                for (int64_t i = from; i < to; ++i, bytes += 256, x += kInputs) {
                    _mm_prefetch(reinterpret_cast<const char*>(bytes + kPanelAhead), _MM_HINT_T0);
                    _mm_prefetch(reinterpret_cast<const char*>(bytes + kPanelAhead + 64), _MM_HINT_T0);
                    one_step<Bits, 0>(bytes, x, ones, fours);
                    if constexpr (Bits::kSteps == 2) {
                        one_step<Bits, 1>(bytes, x + 16, ones, fours);
                    }
                }
                TRIT_UNROLL
                for (int g = 0; g < kRegisters; ++g) {
                    ones[g] = fold(ones[g], fours[g]);
                }
            }
            TRIT_UNROLL
            for (int g = 0; g < kRegisters; ++g) {
                add_to(c + r + 8 * g, step == 0, widen(ones[g]));
            }
        }
    }
}

/// One step of `direct`: 16 inputs of 16 rows x M tokens.
template <typename Bits, int kStep, int M>
TRIT_INLINE void direct_step(const uint8_t* bytes, const int8_t* x, size_t q_row_bytes,
                             Lane (&acc)[M][kTileRegisters]) {
    const __m256i mask = _mm256_set1_epi8(3);
    TRIT_UNROLL
    for (int f = 0; f < 4; ++f) {
        __m256i u[kTileRegisters];
        TRIT_UNROLL
        for (int g = 0; g < kTileRegisters; ++g) {
            u[g] = _mm256_and_si256(
                _mm256_srli_epi16(Bits::template fields<kStep>(yload(bytes + 32 * g)), 2 * f), mask);
        }
        TRIT_UNROLL
        for (int j = 0; j < M; ++j) {
            const __m256i act = repeat_four(x + static_cast<size_t>(j) * q_row_bytes + 4 * f);
            TRIT_UNROLL
            for (int g = 0; g < kTileRegisters; ++g) {
                acc[j][g] = add(acc[j][g], u[g], act);
            }
        }
    }
}

/// Adds `steps` x 256 bytes of all rows x M tokens to c, straight from the panel.
template <typename Bits, int M>
void direct(int64_t steps, const uint8_t* panel, bool first, const int8_t* q, size_t q_row_bytes,
            int32_t* c) {
    for (int r = 0; r < TRIT_PANEL_ROWS; r += 8 * kTileRegisters) {
        Lane acc[M][kTileRegisters] = {};
        const uint8_t* bytes = panel + 4 * r;
        const int8_t* x = q;
        for (int64_t i = 0; i < steps; ++i, bytes += 256, x += 16 * Bits::kSteps) {
            _mm_prefetch(reinterpret_cast<const char*>(bytes + kPanelAhead), _MM_HINT_T0);
            direct_step<Bits, 0>(bytes, x, q_row_bytes, acc);
            if constexpr (Bits::kSteps == 2) {
                direct_step<Bits, 1>(bytes, x + 16, q_row_bytes, acc);
            }
        }
        TRIT_UNROLL
        for (int j = 0; j < M; ++j) {
            TRIT_UNROLL
            for (int g = 0; g < kTileRegisters; ++g) {
                add_to(c + j * TRIT_PANEL_ROWS + r + 8 * g, first, widen(acc[j][g]));
            }
        }
    }
}

/// Up to kFewTokens tokens: unpacked bytes would be used too seldom to be worth writing. A chunk of the panel
/// stays in the first-level cache while the tokens go by, four at a time.
template <typename Bits>
void few_tokens(int64_t k, const uint8_t* panel, const int8_t* q, size_t q_row_bytes, int m, int32_t* c) {
    constexpr int64_t kChunk = (kMostFours < 64 ? kMostFours : 64) / 4 / Bits::kSteps;
    constexpr int kInputs = 16 * Bits::kSteps;
    const int64_t steps = k / kInputs;
    constexpr decltype(&direct<Bits, 1>) kDirect[] = {direct<Bits, 1>, direct<Bits, 2>, direct<Bits, 3>,
                                                      direct<Bits, 4>};
    for (int64_t step = 0; step < steps; step += kChunk) {
        const int64_t count = steps - step < kChunk ? steps - step : kChunk;
        in_passes(kDirect, m, q + kInputs * step, q_row_bytes, c, count, panel + 256 * step, step == 0);
    }
}

/// Adds `fours` x 4 unpacked inputs of 16 rows x M tokens to c. bytes: for every 4 inputs the panel's 4
/// vectors.
template <int M>
void tile(int fours, const uint8_t* bytes, bool first, const int8_t* q, size_t q_row_bytes, int32_t* c) {
    Lane acc[M][kTileRegisters] = {};
    for (int l = 0; l < fours; ++l, bytes += 256, q += 4) {
        __m256i u[kTileRegisters];
        TRIT_UNROLL
        for (int r = 0; r < kTileRegisters; ++r) {
            u[r] = yload(bytes + 32 * r);
        }
        TRIT_UNROLL
        for (int j = 0; j < M; ++j) {
            const __m256i act = repeat_four(q + static_cast<size_t>(j) * q_row_bytes);
            TRIT_UNROLL
            for (int r = 0; r < kTileRegisters; ++r) {
                acc[j][r] = add(acc[j][r], u[r], act);
            }
        }
    }
    TRIT_UNROLL
    for (int j = 0; j < M; ++j) {
        TRIT_UNROLL
        for (int r = 0; r < kTileRegisters; ++r) {
            add_to(c + j * TRIT_PANEL_ROWS + 8 * r, first, widen(acc[j][r]));
        }
    }
}

/// All tokens against one unpacked chunk, 16 rows after 16 rows.
template <int M>
void tiles(int fours, const uint8_t* bytes, bool first, const int8_t* q, size_t q_row_bytes, int32_t* c) {
    for (int r = 0; r < TRIT_PANEL_ROWS; r += 8 * kTileRegisters) {
        tile<M>(fours, bytes + 4 * r, first, q, q_row_bytes, c + r);
    }
}

/// 32 bytes of a step: a byte for each code, in four vectors.
void unpack_fields(__m256i fields, uint8_t* out) {
    const __m256i mask = _mm256_set1_epi8(3);
    ystore(out, _mm256_and_si256(fields, mask));
    ystore(out + 256, _mm256_and_si256(_mm256_srli_epi16(fields, 2), mask));
    ystore(out + 512, _mm256_and_si256(_mm256_srli_epi16(fields, 4), mask));
    ystore(out + 768, _mm256_and_si256(_mm256_srli_epi16(fields, 6), mask));
}

template <typename Bits>
void many_tokens(int64_t k, const uint8_t* panel, const int8_t* q, size_t q_row_bytes, int m, int32_t* c) {
    constexpr decltype(&tiles<1>) kTiles[kTileTokens] = {tiles<1>, tiles<2>, tiles<3>,
                                                         tiles<4>, tiles<5>, tiles<6>};
    // As many inputs as a lane can add up; in the first-level cache.
    constexpr int kChunk = (kMostFours < 64 ? kMostFours : 64) / 4 * 16;
    constexpr int kInputs = 16 * Bits::kSteps;
    static_assert(kChunk % kInputs == 0, "whole steps");
    alignas(64) uint8_t bytes[kChunk * TRIT_PANEL_ROWS];
    for (int64_t chunk = 0; chunk < k; chunk += kChunk) {
        const int inputs = static_cast<int>(k - chunk < kChunk ? k - chunk : kChunk);
        uint8_t* out = bytes;
        for (int step = 0; step < inputs; step += kInputs, panel += 256, out += Bits::kSteps * 4 * 256) {
            for (int r = 0; r < 8; ++r) {
                _mm_prefetch(reinterpret_cast<const char*>(panel + kPanelAhead + 32 * r), _MM_HINT_T0);
                const __m256i packed = yload(panel + 32 * r);
                unpack_fields(Bits::template fields<0>(packed), out + 32 * r);
                if constexpr (Bits::kSteps == 2) {
                    unpack_fields(Bits::template fields<1>(packed), out + 4 * 256 + 32 * r);
                }
            }
        }
        in_passes(kTiles, m, q + chunk, q_row_bytes, c, inputs / 4, bytes, chunk == 0);
    }
}

template <typename Bits>
void panel_by(int64_t k, const uint8_t* panel, const int8_t* q, size_t q_row_bytes, int m, int32_t* c) {
    if (m == 1) {
        one_token<Bits>(k, panel, q, c);
    } else if (m <= kFewTokens) {
        few_tokens<Bits>(k, panel, q, q_row_bytes, m, c);
    } else {
        many_tokens<Bits>(k, panel, q, q_row_bytes, m, c);
    }
}
constexpr trit_panel_fn panel_2_bits = panel_by<TwoBits>;
constexpr trit_panel_fn panel_1_bit = panel_by<OneBit>;

void finish(int n, const int32_t* c, int32_t act_sum, float act_scale, const float* w_scale, int w_step,
            float* out) {
    const __m256i sum = _mm256_set1_epi32(act_sum);
    const __m256 scale = _mm256_set1_ps(act_scale);
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 value = _mm256_cvtepi32_ps(_mm256_sub_epi32(yload(c + i), sum));
        const __m256 w = w_step == 0 ? _mm256_set1_ps(*w_scale) : _mm256_loadu_ps(w_scale + i);
        _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_div_ps(value, scale), w));
    }
    for (; i < n; ++i) {
        out[i] = static_cast<float>(c[i] - act_sum) / act_scale * w_scale[i * w_step];
    }
}

void accumulate(const int32_t* c, int32_t act_sum, float act_step, const uint16_t* w_scale, float* acc) {
    const __m256i sum = _mm256_set1_epi32(act_sum);
    const __m256 step = _mm256_set1_ps(act_step);
    for (int i = 0; i < TRIT_PANEL_ROWS; i += 8) {
        const __m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(yload(c + i), sum)), step);
        const __m256 w = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w_scale + i)));
        _mm256_storeu_ps(acc + i, _mm256_add_ps(_mm256_loadu_ps(acc + i), _mm256_mul_ps(value, w)));
    }
}

/// As many lanes as the prefill tile has. Each takes its neighbour for activations, so that no product is
/// computed once for all.
int64_t mac_loop(int64_t rounds) {
    constexpr int kLanes = kTileRegisters * kTileTokens;
    volatile char seed = 1;
    const __m256i a = _mm256_set1_epi8(seed);
    Lane acc[kLanes];
    TRIT_UNROLL_24
    for (int i = 0; i < kLanes; ++i) {
        acc[i] = _mm256_set1_epi8(static_cast<char>(seed + i));
    }
    for (int64_t round = 0; round < rounds; ++round) {
        TRIT_UNROLL_24
        for (int i = 0; i < kLanes; ++i) {
            acc[i] = add(acc[i], a, acc[(i + 1) % kLanes]);
        }
    }
    __m256i all = acc[0];
    TRIT_UNROLL_24
    for (int i = 1; i < kLanes; ++i) {
        all = _mm256_xor_si256(all, acc[i]);
    }
    volatile int32_t sink = _mm256_extract_epi32(all, 0) ^ _mm256_extract_epi32(all, 7);
    (void)sink;
    return rounds * kLanes * 32;
}

uint64_t read_loop(const uint8_t* data, size_t bytes, size_t ahead) {
    __m256i acc[4] = {};
    for (size_t i = 0; i < bytes; i += 128) {
        if (ahead != 0) {
            _mm_prefetch(reinterpret_cast<const char*>(data + i + ahead), _MM_HINT_T0);
            _mm_prefetch(reinterpret_cast<const char*>(data + i + ahead + 64), _MM_HINT_T0);
        }
        TRIT_UNROLL
        for (int part = 0; part < 4; ++part) {
            acc[part] = _mm256_xor_si256(acc[part], yload(data + i + 32 * static_cast<size_t>(part)));
        }
    }
    acc[0] = _mm256_xor_si256(_mm256_xor_si256(acc[0], acc[1]), _mm256_xor_si256(acc[2], acc[3]));
    alignas(32) uint64_t words[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(words), acc[0]);
    return words[0] ^ words[1] ^ words[2] ^ words[3];
}
