// SPDX-License-Identifier: MIT
/// Activations and in-place i2_s of the 256-bit tiers. Included inside the target region and the anonymous
/// namespace of a tier.
///
/// i2_s: one 32-byte load is one block; field f of byte p is weight 32 * f + p, so each field meets 32
/// neighbouring activations. vpmaddubsw adds two products u * q into int16: |sum| <= 2 * 3 * 128 = 768, for
/// code 3 too. Four fields of kFlushBlocks = 8 blocks give at most 4 * 8 * 768 = 24576 < 32768 before the
/// widening to int32. (Widening every 32 blocks, as other engines do, overflows for activations of one sign:
/// 65024 > 32767.)

#include "kernels/tiers/scale-inl.h"

constexpr int kFlushBlocks = 8;

int32_t sum_lanes(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1));
    return _mm_cvtsi128_si32(s);
}

/// Largest bit pattern of |x[i]|.
uint32_t max_abs_bits(int64_t k, const float* x) {
    const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i best = _mm256_setzero_si256();
    for (int64_t i = 0; i < k; i += 8) {
        const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i));
        best = _mm256_max_epu32(best, _mm256_and_si256(bits, magnitude));
    }
    alignas(32) uint32_t lanes[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), best);
    uint32_t bits = 0;
    for (const uint32_t lane : lanes) {
        bits = lane > bits ? lane : bits;
    }
    return bits;
}

void quantize(int64_t k, const float* x, int8_t* q, float* scale, int32_t* sum) {
    if (!find_scale(max_abs_bits(k, x), k, q, scale, sum)) {
        return;
    }
    const float s = *scale;
    const __m256 vs = _mm256_set1_ps(s);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i total = _mm256_setzero_si256();
    for (int64_t i = 0; i < k; i += 32) {
        __m256i v[4];
        TRIT_UNROLL
        for (int part = 0; part < 4; ++part) {
            v[part] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i + 8 * part), vs));
            total = _mm256_add_epi32(total, v[part]);
        }
        const __m256i low = _mm256_packs_epi32(v[0], v[1]);
        const __m256i high = _mm256_packs_epi32(v[2], v[3]);
        const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + i), bytes);
    }
    *sum = sum_lanes(total);
}

/// One row against M tokens.
template <int M>
void row_by_tokens(int64_t blocks, const uint8_t* row, const int8_t* q, size_t q_row_bytes, int32_t* c,
                   size_t c_stride) {
    const __m256i field = _mm256_set1_epi8(3);
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i total[M] = {};
    for (int64_t first = 0; first < blocks; first += kFlushBlocks) {
        const int64_t last = first + kFlushBlocks < blocks ? first + kFlushBlocks : blocks;
        __m256i pairs[M] = {};
        for (int64_t block = first; block < last; ++block) {
            const __m256i codes =
                _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + block * TRIT_I2_S_BLOCK_BYTES));
            const __m256i u[4] = {_mm256_and_si256(_mm256_srli_epi16(codes, 6), field),
                                  _mm256_and_si256(_mm256_srli_epi16(codes, 4), field),
                                  _mm256_and_si256(_mm256_srli_epi16(codes, 2), field),
                                  _mm256_and_si256(codes, field)};
            TRIT_UNROLL
            for (int j = 0; j < M; ++j) {
                const int8_t* x = q + static_cast<size_t>(j) * q_row_bytes + block * TRIT_I2_S_BLOCK;
                TRIT_UNROLL
                for (int f = 0; f < 4; ++f) {
                    const __m256i part = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + 32 * f));
                    pairs[j] = _mm256_add_epi16(pairs[j], _mm256_maddubs_epi16(u[f], part));
                }
            }
        }
        TRIT_UNROLL
        for (int j = 0; j < M; ++j) {
            total[j] = _mm256_add_epi32(total[j], _mm256_madd_epi16(pairs[j], ones));
        }
    }
    TRIT_UNROLL
    for (int j = 0; j < M; ++j) {
        c[static_cast<size_t>(j) * c_stride] = sum_lanes(total[j]);
    }
}

#include "kernels/tiers/i2_s_rows-inl.h"
