// SPDX-License-Identifier: MIT
/// TL1 and TL2 kernels (table-inl.h) for AVX-512 with VBMI. table_avx2-inl.h says what each word means.
#include "kernels/tiers/simd.h"

#ifdef TRIT_X86

TRIT_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")
namespace {

#include "kernels/lookup/table_avx512_rows-inl.h"

inline int supported() {
    return trit_x86_has(TRIT_X86_AVX2 | TRIT_X86_AVX512F | TRIT_X86_AVX512BW | TRIT_X86_AVX512VL |
                        TRIT_X86_AVX512DQ | TRIT_X86_AVX512VBMI);
}

// vpermb looks up 64 entries by the low 6 bits of an index. A table's 16 are there four times, so bits 4 to 7
// may be anything: the other index of the byte, or what a shift moved in from the next one.
inline Bytes low_half(Bytes v) { return v; }
inline Bytes high_half(Bytes v) { return _mm512_srli_epi16(v, 4); }
inline Bytes look_up(Bytes table, Bytes index) { return _mm512_permutexvar_epi8(index, table); }

#include "kernels/lookup/table-inl.h"

}  // namespace
TRIT_TARGET_END

#else
#include "kernels/lookup/absent-inl.h"
#endif
