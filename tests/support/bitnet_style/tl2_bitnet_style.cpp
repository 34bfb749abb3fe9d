// SPDX-License-Identifier: MIT
/// For comparison only: a TL2 kernel with bitnet.cpp's choice of instructions and tile, on our panels, so
/// that it is exact, reads the same bytes and runs in the same program as ours. Written from their
/// description: tables of 16-bit sums for all inputs, as low and high bytes; 32 rows; both halves of a
/// look-up are put together to 16 bits at once and negated there, by an addition and an exclusive or with a
/// mask made of two shifts; blocks of 96 inputs are added up in 16 bits and go to 32 bits in memory.
///
///     cmake -S . -B build -DTRIT_KERNELS_DIR=$PWD/tests/support/bitnet_style
///     build/bin/trit-bench --packings 2_bits,tl2,tl2_bitnet_style --m 1
#include <cstring>

#include "kernels/tier.h"

#ifdef TRIT_X86

#include <immintrin.h>

TRIT_TARGET_BEGIN("avx2")
namespace {

constexpr int kTokens = 1;
constexpr int kPanels = 40;
constexpr int kStepInputs = 24;
constexpr int kStepBytes = 320;
constexpr int kBlockSteps = 4;  // BK = 96
constexpr int kTripleBytes = 32;

struct Work {
    alignas(64) int8_t tables[TRIT_PANEL_MAX_K / 3 * kTripleBytes + 8 * kTripleBytes];
};

int supported() { return trit_x86_has(TRIT_X86_AVX2); }

void build_tables(int64_t k, const int8_t* q, int8_t* table) {
    // Weights of the three inputs in entry T = 9 t0 + 3 t1 + t2.
    alignas(32) constexpr int16_t kWeights[3][16] = {
        {0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0},
        {0, 0, 1, 1, 1, -1, -1, -1, 0, 0, 0, 1, 1, 1, 0, 0},
        {0, 1, -1, 0, 1, -1, 0, 1, -1, 0, 1, -1, 0, 1, 0, 0},
    };
    const int64_t end = (k + kStepInputs - 1) / kStepInputs * kStepInputs;
    for (int64_t i = 0; i < end; i += 3, table += kTripleBytes) {
        __m256i sums = _mm256_setzero_si256();
        for (int64_t j = 0; j < 3; ++j) {
            const int16_t x = i + j < k ? q[i + j] : int16_t{0};
            const __m256i weights = _mm256_load_si256(reinterpret_cast<const __m256i*>(kWeights[j]));
            sums = _mm256_add_epi16(sums, _mm256_sign_epi16(_mm256_set1_epi16(x), weights));
        }
        const __m256i low = _mm256_and_si256(sums, _mm256_set1_epi16(0xFF));
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(sums, 8), _mm256_set1_epi16(0xFF));
        const __m256i both = _mm256_permute4x64_epi64(_mm256_packus_epi16(low, high), 0xD8);
        _mm256_store_si256(reinterpret_cast<__m256i*>(table), both);
    }
}

__m256i load(const uint8_t* p) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(p)); }

__m256i load_table(const int8_t* p) {
    return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
}

/// Adds `steps` steps of 32 rows to c.
void add_rows(const uint8_t* panel, int64_t steps, const int8_t* table, bool first, int32_t* c) {
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i sums[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                       _mm256_setzero_si256()};
    for (int64_t step = 0; step < steps; ++step, panel += kStepBytes, table += 8 * kTripleBytes) {
        const __m256i signs = load(panel + 256);
        const __m256i low_signs = _mm256_unpacklo_epi8(signs, signs);
        const __m256i high_signs = _mm256_unpackhi_epi8(signs, signs);
        TRIT_UNROLL
        for (int i = 0; i < 8; ++i) {
            const __m256i vector = load(panel + 64 * (i / 2));
            const __m256i index = _mm256_and_si256(i % 2 == 0 ? vector : _mm256_srli_epi16(vector, 4), mask);
            const __m256i low = _mm256_shuffle_epi8(load_table(table + kTripleBytes * i), index);
            const __m256i high = _mm256_shuffle_epi8(load_table(table + kTripleBytes * i + 16), index);
            const __m256i even_sign = _mm256_srai_epi16(_mm256_slli_epi16(low_signs, i), 15);
            const __m256i odd_sign = _mm256_srai_epi16(_mm256_slli_epi16(high_signs, i), 15);
            const __m256i even = _mm256_add_epi16(_mm256_unpacklo_epi8(low, high), even_sign);
            const __m256i odd = _mm256_add_epi16(_mm256_unpackhi_epi8(low, high), odd_sign);
            sums[i % 2] = _mm256_add_epi16(sums[i % 2], _mm256_xor_si256(even, even_sign));
            sums[2 + i % 2] = _mm256_add_epi16(sums[2 + i % 2], _mm256_xor_si256(odd, odd_sign));
        }
    }
    const __m256i even = _mm256_add_epi16(sums[0], sums[1]);
    const __m256i odd = _mm256_add_epi16(sums[2], sums[3]);
    const __m128i eights[4] = {_mm256_castsi256_si128(even), _mm256_castsi256_si128(odd),
                               _mm256_extracti128_si256(even, 1), _mm256_extracti128_si256(odd, 1)};
    for (int i = 0; i < 4; ++i) {
        auto* p = reinterpret_cast<__m256i*>(c + 8 * i);
        const __m256i wide = _mm256_cvtepi16_epi32(eights[i]);
        _mm256_storeu_si256(p, first ? wide : _mm256_add_epi32(_mm256_loadu_si256(p), wide));
    }
}

void multiply(int64_t k, const uint8_t* panels, size_t panel_bytes, int count, const int8_t* q, size_t, int,
              void* memory, int32_t* c, size_t) {
    int8_t* tables = static_cast<Work*>(memory)->tables;
    build_tables(k, q, tables);
    const int64_t steps = (k + kStepInputs - 1) / kStepInputs;
    for (int p = 0; p < count; ++p, panels += panel_bytes) {
        for (int64_t step = 0; step < steps; step += kBlockSteps) {
            const int64_t some = steps - step < kBlockSteps ? steps - step : kBlockSteps;
            for (int half = 0; half < 2; ++half) {
                add_rows(panels + step * kStepBytes + 32 * half, some, tables + step * 8 * kTripleBytes,
                         step == 0, c + TRIT_PANEL_ROWS * p + 32 * half);
            }
        }
    }
}

constexpr size_t kWorkBytes = sizeof(Work);

}  // namespace
TRIT_TARGET_END

#else

namespace {
constexpr int (*supported)() = trit_never;
constexpr int kTokens = 0;
constexpr int kPanels = 0;
constexpr size_t kWorkBytes = 0;
constexpr trit_lookup_fn multiply = nullptr;
}  // namespace

#endif

extern "C" const trit_lookup_kernel trit_tl2_bitnet_style = {
    "tl2_bitnet_style", "avx2",   TRIT_PACKING_TL2, supported, kTokens, 1, kPanels,
    kWorkBytes,         multiply, nullptr,
};
