// SPDX-License-Identifier: MIT
/// Panel kernels of the AVX-512 tiers. Included inside the target region and the anonymous namespace of a
/// tier.
///
/// Three regimes:
/// - one token: weights stream from memory once. Codes are masked, not shifted, so each field has its own
///   accumulator of weight 1, 4, 16 or 64; finished sums are shifted back, exactly.
/// - 2 to Tiles::kDirect tokens: codes are shifted once and meet up to 8 tokens while they are in registers.
/// - more: a chunk of the panel's inputs is unpacked to one byte per code, and every tile of 64 rows x 6
///   tokens reads them from the first-level cache: 24 accumulators, 4 vectors of codes, 1 activation.
/// Largest lane: 192 * 128 * 4 for each step of 16 inputs, so TRIT_PANEL_MAX_K inputs stay below 2^31.

#include "kernels/tiers/bits-inl.h"
#include "kernels/tiers/passes-inl.h"

constexpr size_t kPanelAhead = 8192;

template <typename T>
__m512i zload(const T* p) {
    return _mm512_loadu_si512(p);
}

/// Four neighbouring activations in every lane.
__m512i repeat_four(const int8_t* q) {
    int32_t word = 0;
    std::memcpy(&word, q, sizeof(word));
    return _mm512_set1_epi32(word);
}

/// Sixteen rows' sums of four products each. (As one instruction for GCC, which otherwise copies accumulators
/// to and fro; that cost a third of the speed of one token.)
__m512i dot(__m512i acc, __m512i u, __m512i act) {
#if defined(__GNUC__) && !defined(__clang__) && !defined(TRIT_EMULATE_AVX512)
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u), "v"(act));
    return acc;
#else
    return _mm512_dpbusd_epi32(acc, u, act);
#endif
}

void prefetch(const uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }

/// How a panel's 256 bytes become steps of 16 inputs, four fields of two bits in a byte.
struct TwoBits {
    static constexpr int kSteps = 1;
    template <int kStep>
    static __m512i fields(__m512i bytes) {
        return bytes;
    }
};
struct OneBit {
    static constexpr int kSteps = 2;
    template <int kStep>
    static __m512i fields(__m512i bytes) {
        const __m512i table =
            _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(kNibbles)));
        const __m512i nibbles = kStep == 0 ? bytes : _mm512_srli_epi16(bytes, 4);
        return _mm512_shuffle_epi8(table, _mm512_and_si512(nibbles, _mm512_set1_epi8(0x0F)));
    }
};

/// 16 inputs of one token: a field's codes are masked, not shifted.
template <typename Bits, int kStep>
TRIT_INLINE void one_step(const __m512i (&x)[4], const int8_t* q, __m512i (&acc)[4][4]) {
    const __m512i mask[4] = {_mm512_set1_epi8(0x03), _mm512_set1_epi8(0x0C), _mm512_set1_epi8(0x30),
                             _mm512_set1_epi8(static_cast<char>(0xC0))};
    __m512i fields[4];
    TRIT_UNROLL
    for (int g = 0; g < 4; ++g) {
        fields[g] = Bits::template fields<kStep>(x[g]);
    }
    TRIT_UNROLL
    for (int f = 0; f < 4; ++f) {
        const __m512i act = repeat_four(q + 4 * f);
        TRIT_UNROLL
        for (int g = 0; g < 4; ++g) {
            acc[f][g] = dot(acc[f][g], _mm512_and_si512(fields[g], mask[f]), act);
        }
    }
}

/// One token: 4 row groups x 4 fields = 16 accumulators.
template <typename Bits>
void one_token(int64_t k, const uint8_t* panel, const int8_t* q, size_t, int32_t* c) {
    constexpr int kInputs = 16 * Bits::kSteps;
    __m512i acc[4][4] = {};
    for (int64_t first = 0; first < k; first += kInputs, panel += 256, q += kInputs) {
        __m512i x[4];
        TRIT_UNROLL
        for (int g = 0; g < 4; ++g) {
            prefetch(panel + kPanelAhead + 64 * g);
            x[g] = zload(panel + 64 * g);
        }
        one_step<Bits, 0>(x, q, acc);
        if constexpr (Bits::kSteps == 2) {
            one_step<Bits, 1>(x, q + 16, acc);
        }
    }
    TRIT_UNROLL
    for (int g = 0; g < 4; ++g) {
        const __m512i low = _mm512_add_epi32(acc[0][g], _mm512_srai_epi32(acc[1][g], 2));
        const __m512i high =
            _mm512_add_epi32(_mm512_srai_epi32(acc[2][g], 4), _mm512_srai_epi32(acc[3][g], 6));
        _mm512_storeu_si512(c + 16 * g, _mm512_add_epi32(low, high));
    }
}

/// 16 inputs of M tokens x kGroups row groups: codes are shifted once for all tokens.
template <typename Bits, int kStep, int M, int kGroups>
TRIT_INLINE void few_step(const __m512i (&x)[kGroups], const int8_t* q, size_t q_row_bytes,
                          __m512i (&acc)[M][kGroups]) {
    const __m512i mask = _mm512_set1_epi8(3);
    __m512i fields[kGroups];
    TRIT_UNROLL
    for (int g = 0; g < kGroups; ++g) {
        fields[g] = Bits::template fields<kStep>(x[g]);
    }
    TRIT_UNROLL
    for (int f = 0; f < 4; ++f) {
        __m512i u[kGroups];
        TRIT_UNROLL
        for (int g = 0; g < kGroups; ++g) {
            u[g] = _mm512_and_si512(_mm512_srli_epi16(fields[g], static_cast<unsigned>(2 * f)), mask);
        }
        TRIT_UNROLL
        for (int j = 0; j < M; ++j) {
            const __m512i act = repeat_four(q + static_cast<size_t>(j) * q_row_bytes + 4 * f);
            TRIT_UNROLL
            for (int g = 0; g < kGroups; ++g) {
                acc[j][g] = dot(acc[j][g], u[g], act);
            }
        }
    }
}

/// M tokens x kGroups row groups, codes straight from the panel.
template <typename Bits, int M, int kGroups>
void few_tokens_groups(int64_t k, const uint8_t* panel, const int8_t* q, size_t q_row_bytes, int32_t* c) {
    constexpr int kInputs = 16 * Bits::kSteps;
    __m512i acc[M][kGroups] = {};
    for (int64_t first = 0; first < k; first += kInputs, panel += 256, q += kInputs) {
        __m512i x[kGroups];
        TRIT_UNROLL
        for (int g = 0; g < kGroups; ++g) {
            prefetch(panel + kPanelAhead + 64 * g);
            x[g] = zload(panel + 64 * g);
        }
        few_step<Bits, 0>(x, q, q_row_bytes, acc);
        if constexpr (Bits::kSteps == 2) {
            few_step<Bits, 1>(x, q + 16, q_row_bytes, acc);
        }
    }
    TRIT_UNROLL
    for (int j = 0; j < M; ++j) {
        TRIT_UNROLL
        for (int g = 0; g < kGroups; ++g) {
            _mm512_storeu_si512(c + j * TRIT_PANEL_ROWS + 16 * g, acc[j][g]);
        }
    }
}

/// All 64 rows at once, as long as M x 4 accumulators leave room for the codes; else 32 after 32.
template <typename Bits, int M>
void few_tokens(int64_t k, const uint8_t* panel, const int8_t* q, size_t q_row_bytes, int32_t* c) {
    if constexpr (M <= 6) {
        few_tokens_groups<Bits, M, 4>(k, panel, q, q_row_bytes, c);
    } else {
        few_tokens_groups<Bits, M, 2>(k, panel, q, q_row_bytes, c);
        few_tokens_groups<Bits, M, 2>(k, panel + 128, q, q_row_bytes, c + TRIT_PANEL_ROWS / 2);
    }
}

/// Adds `fours` x 4 unpacked inputs of M tokens to c. bytes: for every 4 inputs the 4 vectors of 64 rows.
template <int M>
void tile(int fours, const uint8_t* bytes, bool first, const int8_t* q, size_t q_row_bytes, int32_t* c) {
    __m512i acc[M][4];
    TRIT_UNROLL
    for (int j = 0; j < M; ++j) {
        TRIT_UNROLL
        for (int g = 0; g < 4; ++g) {
            acc[j][g] = first ? _mm512_setzero_si512() : zload(c + j * TRIT_PANEL_ROWS + 16 * g);
        }
    }
    for (int l = 0; l < fours; ++l, bytes += 256, q += 4) {
        __m512i u[4];
        TRIT_UNROLL
        for (int g = 0; g < 4; ++g) {
            u[g] = zload(bytes + 64 * g);
        }
        TRIT_UNROLL
        for (int j = 0; j < M; ++j) {
            const __m512i act = repeat_four(q + static_cast<size_t>(j) * q_row_bytes);
            TRIT_UNROLL
            for (int g = 0; g < 4; ++g) {
                acc[j][g] = dot(acc[j][g], u[g], act);
            }
        }
    }
    TRIT_UNROLL
    for (int j = 0; j < M; ++j) {
        TRIT_UNROLL
        for (int g = 0; g < 4; ++g) {
            _mm512_storeu_si512(c + j * TRIT_PANEL_ROWS + 16 * g, acc[j][g]);
        }
    }
}

/// All tokens against one unpacked chunk.
void tiles(int fours, const uint8_t* bytes, const int8_t* q, size_t q_row_bytes, int m, bool first,
           int32_t* c) {
    constexpr decltype(&tile<1>) kTiles[] = {tile<1>, tile<2>, tile<3>, tile<4>, tile<5>, tile<6>};
    in_passes(kTiles, m, q, q_row_bytes, c, fours, bytes, first);
}

/// How the many-token kernels multiply a chunk: by vpdpbusd.
struct DotTiles {
    /// Most tokens that take their codes straight from the panel. (Zen 5 could do so for all: its four vector
    /// ports decode beside two products per cycle. Where two ports do both, unpacking wins from about here.)
    static constexpr int kDirect = 16;
    static constexpr int kChunk = 512;      ///< inputs of 2 bits unpacked at once: 32 KB
    static constexpr int kTritChunk = 500;  ///< the same for five trits, in whole steps of 20

    static void run(int fours, const uint8_t* bytes, const int8_t* q, size_t q_row_bytes, int m, bool first,
                    int32_t* c) {
        tiles(fours, bytes, q, q_row_bytes, m, first, c);
    }

    /// 24 independent accumulators, as in the prefill tile; their start values differ, so that none is left
    /// out.
    static int64_t mac_loop(int64_t rounds) {
        volatile char seed = 1;
        const __m512i a = _mm512_set1_epi8(seed);
        __m512i acc[24];
        TRIT_UNROLL_24
        for (int i = 0; i < 24; ++i) {
            acc[i] = _mm512_set1_epi32(seed + i);
        }
        for (int64_t round = 0; round < rounds; ++round) {
            TRIT_UNROLL_24
            for (int i = 0; i < 24; ++i) {
                acc[i] = dot(acc[i], a, a);
            }
        }
        __m512i all = acc[0];
        TRIT_UNROLL_24
        for (int i = 1; i < 24; ++i) {
            all = _mm512_xor_si512(all, acc[i]);
        }
        volatile int32_t sink = _mm512_reduce_add_epi32(all);
        (void)sink;
        return rounds * 24 * 64;
    }
};

/// A byte for each code of a vector: four vectors.
void unpack_fields(__m512i fields, uint8_t* out) {
    const __m512i mask = _mm512_set1_epi8(3);
    TRIT_UNROLL
    for (int f = 0; f < 4; ++f) {
        _mm512_store_si512(out + 256 * f,
                           _mm512_and_si512(_mm512_srli_epi16(fields, static_cast<unsigned>(2 * f)), mask));
    }
}

template <typename Bits, typename Tiles>
void many_tokens(int64_t k, const uint8_t* panel, const int8_t* q, size_t q_row_bytes, int m, int32_t* c) {
    constexpr int kChunk = Tiles::kChunk;
    constexpr int kInputs = 16 * Bits::kSteps;
    static_assert(kChunk % kInputs == 0, "whole steps");
    alignas(64) uint8_t bytes[kChunk * TRIT_PANEL_ROWS];
    for (int64_t chunk = 0; chunk < k; chunk += kChunk) {
        const int inputs = static_cast<int>(k - chunk < kChunk ? k - chunk : kChunk);
        uint8_t* out = bytes;
        for (int step = 0; step < inputs; step += kInputs, panel += 256, out += Bits::kSteps * 4 * 256) {
            TRIT_UNROLL
            for (int g = 0; g < 4; ++g) {
                prefetch(panel + kPanelAhead + 64 * g);
                const __m512i x = zload(panel + 64 * g);
                unpack_fields(Bits::template fields<0>(x), out + 64 * g);
                if constexpr (Bits::kSteps == 2) {
                    unpack_fields(Bits::template fields<1>(x), out + 4 * 256 + 64 * g);
                }
            }
        }
        Tiles::run(inputs / 4, bytes, q + chunk, q_row_bytes, m, chunk == 0, c);
    }
}

template <typename Bits, typename Tiles>
void panel_by(int64_t k, const uint8_t* panel, const int8_t* q, size_t q_row_bytes, int m, int32_t* c) {
    static constexpr decltype(&one_token<Bits>) kFew[] = {
        one_token<Bits>,     few_tokens<Bits, 2>, few_tokens<Bits, 3>, few_tokens<Bits, 4>,
        few_tokens<Bits, 5>, few_tokens<Bits, 6>, few_tokens<Bits, 7>, few_tokens<Bits, 8>};
    if (m > Tiles::kDirect) {
        return many_tokens<Bits, Tiles>(k, panel, q, q_row_bytes, m, c);
    }
    // In passes over the panel, which is in a cache after the first.
    in_passes(kFew, m, q, q_row_bytes, c, k, panel);
}

void finish(int n, const int32_t* c, int32_t act_sum, float act_scale, const float* w_scale, int w_step,
            float* out) {
    const __m512i sum = _mm512_set1_epi32(act_sum);
    const __m512 scale = _mm512_set1_ps(act_scale);
    const __m512 one = _mm512_set1_ps(*w_scale);
    for (int i = 0; i < n; i += 16) {
        const __mmask16 lanes = static_cast<__mmask16>(n - i >= 16 ? 0xFFFF : (1 << (n - i)) - 1);
        const __m512 value = _mm512_cvtepi32_ps(_mm512_sub_epi32(zload(c + i), sum));
        const __m512 w = w_step == 0 ? one : _mm512_maskz_loadu_ps(lanes, w_scale + i);
        _mm512_mask_storeu_ps(out + i, lanes, _mm512_mul_ps(_mm512_div_ps(value, scale), w));
    }
}

void accumulate(const int32_t* c, int32_t act_sum, float act_step, const uint16_t* w_scale, float* acc) {
    const __m512i sum = _mm512_set1_epi32(act_sum);
    const __m512 step = _mm512_set1_ps(act_step);
    TRIT_UNROLL
    for (int i = 0; i < TRIT_PANEL_ROWS; i += 16) {
        const __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(zload(c + i), sum)), step);
        const __m512 w = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w_scale + i)));
        _mm512_storeu_ps(acc + i, _mm512_add_ps(_mm512_loadu_ps(acc + i), _mm512_mul_ps(value, w)));
    }
}

uint64_t read_loop(const uint8_t* data, size_t bytes, size_t ahead) {
    __m512i acc[4] = {};
    for (size_t i = 0; i < bytes; i += 256) {
        TRIT_UNROLL
        for (int part = 0; part < 4; ++part) {
            if (ahead != 0) {
                prefetch(data + i + ahead + 64 * part);
            }
            acc[part] = _mm512_xor_si512(acc[part], zload(data + i + 64 * part));
        }
    }
    acc[0] = _mm512_xor_si512(_mm512_xor_si512(acc[0], acc[1]), _mm512_xor_si512(acc[2], acc[3]));
    return static_cast<uint64_t>(_mm512_reduce_add_epi64(acc[0]));
}
