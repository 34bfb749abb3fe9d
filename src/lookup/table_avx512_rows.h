// SPDX-License-Identifier: MIT
/// What the TL1 and TL2 kernels of AVX-512 share: a register has all 64 rows of a panel, and signs are masks.
/// Included by table_avx512.h and table_avx512_vbmi.h; table_avx2.h says what each word means.

#include "lookup/table_x86.h"

using Bytes = __m512i;
constexpr int kRegisterRows = 64;

struct Words {
    __m512i even;  ///< rows 0..7, 16..23, 32..39 and 48..55
    __m512i odd;   ///< the others
};

inline Bytes load(const uint8_t* p) { return _mm512_load_si512(p); }
inline Bytes load_table(const int8_t* p) {
    return _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Bytes add(Bytes a, Bytes b) { return _mm512_add_epi8(a, b); }

/// Signs of 8 triples in a byte for each row, the first one's in bit 7.
struct Signs {
    Bytes all;
};

inline Signs begin(Bytes signs) { return {signs}; }
inline __mmask64 sign_of(const Signs& signs, int triple) {
    return _mm512_test_epi8_mask(signs.all, _mm512_set1_epi8(static_cast<char>(0x80 >> triple)));
}
inline Signs next(const Signs& signs) { return signs; }
inline Bytes negate(Bytes v, __mmask64 sign) {
    return _mm512_mask_sub_epi8(v, sign, _mm512_setzero_si512(), v);
}

inline Words zero_words() { return {_mm512_setzero_si512(), _mm512_setzero_si512()}; }

inline Words add_nibbles(Words sums, Bytes low, Bytes high) {
    const __m512i worth = _mm512_set1_epi16(0x1001);
    return {_mm512_add_epi16(sums.even, _mm512_maddubs_epi16(worth, _mm512_unpacklo_epi8(low, high))),
            _mm512_add_epi16(sums.odd, _mm512_maddubs_epi16(worth, _mm512_unpackhi_epi8(low, high)))};
}

inline Words add_bytes_of_words(Words sums, Bytes low, Bytes high) {
    return {_mm512_add_epi16(sums.even, _mm512_unpacklo_epi8(low, high)),
            _mm512_add_epi16(sums.odd, _mm512_unpackhi_epi8(low, high))};
}

/// sign: -1 where v is to be negated, else 0.
inline __m512i negate_words(__m512i v, __m512i sign) {
    return _mm512_sub_epi16(_mm512_xor_si512(v, sign), sign);
}

inline Words add_bytes_of_words(Words sums, Bytes low, Bytes high, __mmask64 sign) {
    const __m512i signs = _mm512_movm_epi8(sign);
    return {_mm512_add_epi16(
                sums.even, negate_words(_mm512_unpacklo_epi8(low, high), _mm512_unpacklo_epi8(signs, signs))),
            _mm512_add_epi16(
                sums.odd, negate_words(_mm512_unpackhi_epi8(low, high), _mm512_unpackhi_epi8(signs, signs)))};
}

/// 16 rows: words of 8 and of the next 8.
inline void widen_rows(__m128i even, __m128i odd, bool first, int32_t* to) {
    const __m512i wide = _mm512_cvtepi16_epi32(_mm256_inserti128_si256(_mm256_castsi128_si256(even), odd, 1));
    _mm512_storeu_si512(to, first ? wide : _mm512_add_epi32(_mm512_loadu_si512(to), wide));
}

inline void widen(Words sums, bool first, int32_t* to) {
    widen_rows(_mm512_castsi512_si128(sums.even), _mm512_castsi512_si128(sums.odd), first, to);
    widen_rows(_mm512_extracti32x4_epi32(sums.even, 1), _mm512_extracti32x4_epi32(sums.odd, 1), first,
               to + 16);
    widen_rows(_mm512_extracti32x4_epi32(sums.even, 2), _mm512_extracti32x4_epi32(sums.odd, 2), first,
               to + 32);
    widen_rows(_mm512_extracti32x4_epi32(sums.even, 3), _mm512_extracti32x4_epi32(sums.odd, 3), first,
               to + 48);
}
