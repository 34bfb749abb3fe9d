// SPDX-License-Identifier: MIT
/// TL1 and TL2 kernels (table-inl.h) for AVX-512BW. table_avx2-inl.h says what each word means.
#include "kernels/tiers/simd.h"

#ifdef TRIT_X86

TRIT_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq")
namespace {

#include "kernels/lookup/table_avx512_rows-inl.h"

inline int supported() {
    return trit_x86_has(TRIT_X86_AVX2 | TRIT_X86_AVX512F | TRIT_X86_AVX512BW | TRIT_X86_AVX512VL |
                        TRIT_X86_AVX512DQ);
}

// vpshufb gives 0 where bit 7 of an index is set.
inline Bytes low_half(Bytes v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
inline Bytes high_half(Bytes v) { return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15)); }
inline Bytes look_up(Bytes table, Bytes index) { return _mm512_shuffle_epi8(table, index); }

#include "kernels/lookup/table-inl.h"

}  // namespace
TRIT_TARGET_END

#else
#include "kernels/lookup/absent-inl.h"
#endif
