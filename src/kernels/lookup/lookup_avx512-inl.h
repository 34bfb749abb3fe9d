// SPDX-License-Identifier: MIT
/// Prefill by tables over tokens (lookup-inl.h) for AVX-512BW. lookup_avx2-inl.h says what each word means.
#include "kernels/tiers/simd.h"

#ifdef TRIT_X86

TRIT_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq")
namespace {

#include "kernels/lookup/lookup_x86-inl.h"

using Sums = __m512i;
constexpr int kLanes = 32;

int supported() {
    return trit_x86_has(TRIT_X86_AVX2 | TRIT_X86_AVX512F | TRIT_X86_AVX512BW | TRIT_X86_AVX512VL |
                        TRIT_X86_AVX512DQ);
}

Sums zero() { return _mm512_setzero_si512(); }
Sums load(const void* p) { return _mm512_load_si512(p); }
void store(void* p, Sums v) { _mm512_store_si512(p, v); }
Sums add(Sums a, Sums b) { return _mm512_add_epi16(a, b); }
Sums subtract(Sums a, Sums b) { return _mm512_sub_epi16(a, b); }
void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

void widen(Sums sums, bool first, int32_t* to) {
    const __m512i halves[2] = {_mm512_cvtepi16_epi32(_mm512_castsi512_si256(sums)),
                               _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(sums, 1))};
    for (int i = 0; i < 2; ++i) {
        int32_t* p = to + 16 * i;
        _mm512_store_si512(p, first ? halves[i] : _mm512_add_epi32(_mm512_load_si512(p), halves[i]));
    }
}

#include "kernels/lookup/lookup-inl.h"

}  // namespace
TRIT_TARGET_END

#else
#include "kernels/lookup/absent-inl.h"
#endif
