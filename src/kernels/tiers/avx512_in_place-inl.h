// SPDX-License-Identifier: MIT
/// Activations and in-place i2_s of the AVX-512 tiers. Included inside the target region and the anonymous
/// namespace of a tier.
///
/// i2_s: the 32 bytes of a block are loaded into both halves of a register. With the low half keeping field 2
/// g and the high half field 2 g + 1, the register holds the codes of weights 64 g .. 64 g + 63 in their
/// natural order, so one 64-byte load brings their activations:
///
///     byte   0 ............ 31 | 32 ........... 63
///     g = 0  field 0, bits 7:6 | field 1, bits 5:4      weights  0 .. 63
///     g = 1  field 2, bits 3:2 | field 3, bits 1:0      weights 64 .. 127
///
/// Codes stay where they are in their byte: the low half counts 4 x as much as the high half (and, for one
/// token, the first register 16 x as much as the second). These are powers of two and every product has the
/// factor, so a shift of the finished sums takes them out exactly. |u << 6| * |q| * 4 products <= 192 * 128 *
/// 4 = 98304 per block and lane: an int32 lane holds 2^31 / 98304 = 21845 blocks, k = 2.7 million.

#include "kernels/tiers/scale-inl.h"

constexpr int kInPlaceRows = 4;
constexpr int kInPlaceTokens = 4;
/// How far ahead of the loads the weights are asked for, in bytes, when one token streams through them.
constexpr int kPrefetchBytes = 2048;

__m512i load(const void* p) { return _mm512_loadu_si512(p); }

/// A block's 32 bytes, twice.
__m512i load_block(const uint8_t* p) {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

__m512i halves(char low, char high) {
    return _mm512_inserti64x4(_mm512_set1_epi8(low), _mm256_set1_epi8(high), 1);
}

void quantize(int64_t k, const float* x, int8_t* q, float* scale, int32_t* sum) {
    // Largest bit pattern of |x[i]|, 16 floats at a time; k % 32 == 0 leaves no tail.
    const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
    __m512i best = _mm512_setzero_si512();
    for (int64_t i = 0; i < k; i += 16) {
        best = _mm512_max_epu32(best, _mm512_and_si512(load(x + i), magnitude));
    }
    if (!find_scale(_mm512_reduce_max_epu32(best), k, q, scale, sum)) {
        return;
    }
    const float s = *scale;
    const __m512 vs = _mm512_set1_ps(s);
    __m512i total = _mm512_setzero_si512();
    for (int64_t i = 0; i < k; i += 16) {
        const __m512i v = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), vs));
        total = _mm512_add_epi32(total, v);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(q + i), _mm512_cvtepi32_epi8(v));
    }
    *sum = _mm512_reduce_add_epi32(total);
}

/// Low half's lanes count 4 x: take that out and fold the halves.
__m256i fold(__m512i acc) {
    const __m256i low = _mm256_srai_epi32(_mm512_castsi512_si256(acc), 2);
    return _mm256_add_epi32(low, _mm512_extracti64x4_epi64(acc, 1));
}

/// Lane sums of four folded accumulators, in order.
__m128i sum_four(__m256i a, __m256i b, __m256i c, __m256i d) {
    const __m256i s = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    return _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
}

/// R rows x M tokens: R * M accumulators, M activation registers, one of codes and the mask.
template <int R, int M>
void in_place_tile(int64_t blocks, const uint8_t* w, size_t w_row_bytes, const int8_t* q, size_t q_row_bytes,
                   int32_t* c, size_t c_stride) {
    const __m512i mask = halves(0x0C, 0x03);
    __m512i acc[M][R] = {};
    for (int64_t block = 0; block < blocks; ++block) {
        const uint8_t* codes = w + block * TRIT_I2_S_BLOCK_BYTES;
        TRIT_UNROLL
        for (int g = 0; g < 2; ++g) {
            const int8_t* x = q + block * TRIT_I2_S_BLOCK + 64 * g;
            __m512i act[M];
            TRIT_UNROLL
            for (int j = 0; j < M; ++j) {
                act[j] = load(x + static_cast<size_t>(j) * q_row_bytes);
            }
            TRIT_UNROLL
            for (int i = 0; i < R; ++i) {
                const __m512i bytes = load_block(codes + static_cast<size_t>(i) * w_row_bytes);
                const __m512i u = _mm512_and_si512(g == 0 ? _mm512_srli_epi16(bytes, 4) : bytes, mask);
                TRIT_UNROLL
                for (int j = 0; j < M; ++j) {
                    acc[j][i] = _mm512_dpbusd_epi32(acc[j][i], u, act[j]);
                }
            }
        }
    }
    TRIT_UNROLL
    for (int j = 0; j < M; ++j) {
        int32_t* out = c + static_cast<size_t>(j) * c_stride;
        if constexpr (R == 4) {
            _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                             sum_four(fold(acc[j][0]), fold(acc[j][1]), fold(acc[j][2]), fold(acc[j][3])));
        } else {
            const __m256i only = fold(acc[j][0]);
            out[0] = _mm_cvtsi128_si32(sum_four(only, only, only, only));
        }
    }
}

/// R rows against one token: memory-bound, so the codes are not even shifted (two accumulators per row
/// instead).
template <int R>
void stream(int64_t blocks, const uint8_t* w, size_t w_row_bytes, const int8_t* q, int32_t* c) {
    const __m512i first = halves(static_cast<char>(0xC0), 0x30);
    const __m512i second = halves(0x0C, 0x03);
    __m512i acc0[R] = {};
    __m512i acc1[R] = {};
    for (int64_t block = 0; block < blocks; ++block) {
        const __m512i x0 = load(q + block * TRIT_I2_S_BLOCK);
        const __m512i x1 = load(q + block * TRIT_I2_S_BLOCK + 64);
        TRIT_UNROLL
        for (int i = 0; i < R; ++i) {
            const uint8_t* codes = w + static_cast<size_t>(i) * w_row_bytes + block * TRIT_I2_S_BLOCK_BYTES;
            _mm_prefetch(reinterpret_cast<const char*>(codes) + kPrefetchBytes, _MM_HINT_T0);
            const __m512i bytes = load_block(codes);
            acc0[i] = _mm512_dpbusd_epi32(acc0[i], _mm512_and_si512(bytes, first), x0);
            acc1[i] = _mm512_dpbusd_epi32(acc1[i], _mm512_and_si512(bytes, second), x1);
        }
    }
    __m256i sums[R];
    TRIT_UNROLL
    for (int i = 0; i < R; ++i) {
        sums[i] = fold(_mm512_add_epi32(_mm512_srai_epi32(acc0[i], 4), acc1[i]));
    }
    if constexpr (R == 4) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(c), sum_four(sums[0], sums[1], sums[2], sums[3]));
    } else {
        c[0] = _mm_cvtsi128_si32(sum_four(sums[0], sums[0], sums[0], sums[0]));
    }
}

/// R rows against all m tokens.
template <int R>
void rows(int64_t blocks, const uint8_t* w, size_t w_row_bytes, const int8_t* q, size_t q_row_bytes, int m,
          int32_t* c, size_t c_stride) {
    for (int j = 0; j < m; j += kInPlaceTokens) {
        const int8_t* x = q + static_cast<size_t>(j) * q_row_bytes;
        int32_t* out = c + static_cast<size_t>(j) * c_stride;
        switch (m - j) {
            case 1:
                stream<R>(blocks, w, w_row_bytes, x, out);
                break;
            case 2:
                in_place_tile<R, 2>(blocks, w, w_row_bytes, x, q_row_bytes, out, c_stride);
                break;
            case 3:
                in_place_tile<R, 3>(blocks, w, w_row_bytes, x, q_row_bytes, out, c_stride);
                break;
            default:
                in_place_tile<R, kInPlaceTokens>(blocks, w, w_row_bytes, x, q_row_bytes, out, c_stride);
                break;
        }
    }
}

void i2_s(int64_t k, const uint8_t* w, size_t w_row_bytes, int n, const int8_t* q, size_t q_row_bytes, int m,
          int32_t* c, size_t c_stride) {
    const int64_t blocks = k / TRIT_I2_S_BLOCK;
    int i = 0;
    for (; i + kInPlaceRows <= n; i += kInPlaceRows) {
        rows<kInPlaceRows>(blocks, w + static_cast<size_t>(i) * w_row_bytes, w_row_bytes, q, q_row_bytes, m,
                           c + i, c_stride);
    }
    for (; i < n; ++i) {
        rows<1>(blocks, w + static_cast<size_t>(i) * w_row_bytes, w_row_bytes, q, q_row_bytes, m, c + i,
                c_stride);
    }
}
