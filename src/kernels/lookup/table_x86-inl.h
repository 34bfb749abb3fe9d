// SPDX-License-Identifier: MIT
/// How the TL1 and TL2 kernels of x86 build a table: 16 bytes at a time. Included by table_avx2-inl.h and
/// table_avx512_rows-inl.h.

using Entries = __m128i;

inline Entries times(int8_t x, const int8_t* weights) {
    return _mm_sign_epi8(_mm_set1_epi8(x), _mm_load_si128(reinterpret_cast<const __m128i*>(weights)));
}
inline Entries add_entries(Entries a, Entries b) { return _mm_add_epi8(a, b); }
inline void store_entries(int8_t* to, Entries v) { _mm_store_si128(reinterpret_cast<__m128i*>(to), v); }
inline void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
