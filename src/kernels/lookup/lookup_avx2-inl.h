// SPDX-License-Identifier: MIT
/// Prefill by tables over tokens (lookup-inl.h) for AVX2: its vocabulary.
///
///     Sums                    a register of 16-bit sums, one for each of kLanes tokens
///     supported()             whether this CPU has the instructions
///     zero, load, store, add, subtract
///     widen(sums, first, to)  adds a register's sums to 32-bit ones in memory (first: overwrites them)
///     spread(...)             16 inputs of some tokens, as 16-bit numbers, inputs outside
///     gather(...)             32-bit sums, rows outside, to results, tokens outside
#include "kernels/tiers/simd.h"

#ifdef TRIT_X86

TRIT_TARGET_BEGIN("avx2")
namespace {

#include "kernels/lookup/lookup_x86-inl.h"

using Sums = __m256i;
constexpr int kLanes = 16;

int supported() { return trit_x86_has(TRIT_X86_AVX2); }

Sums zero() { return _mm256_setzero_si256(); }
Sums load(const void* p) { return _mm256_load_si256(static_cast<const __m256i*>(p)); }
void store(void* p, Sums v) { _mm256_store_si256(static_cast<__m256i*>(p), v); }
Sums add(Sums a, Sums b) { return _mm256_add_epi16(a, b); }
Sums subtract(Sums a, Sums b) { return _mm256_sub_epi16(a, b); }
void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

void widen(Sums sums, bool first, int32_t* to) {
    const __m256i halves[2] = {_mm256_cvtepi16_epi32(_mm256_castsi256_si128(sums)),
                               _mm256_cvtepi16_epi32(_mm256_extracti128_si256(sums, 1))};
    for (int i = 0; i < 2; ++i) {
        auto* p = reinterpret_cast<__m256i*>(to + 8 * i);
        _mm256_store_si256(p, first ? halves[i] : _mm256_add_epi32(_mm256_load_si256(p), halves[i]));
    }
}

#include "kernels/lookup/lookup-inl.h"

}  // namespace
TRIT_TARGET_END

#else
#include "kernels/lookup/absent-inl.h"
#endif
