// SPDX-License-Identifier: MIT
/// What the TL1 and TL2 kernels of AVX-512 share: a register has all 64 rows of a panel, and signs are masks.
/// Included by table_avx512-inl.h and table_avx512_vbmi-inl.h; table_avx2-inl.h says what each word means.

#include "kernels/lookup/table_x86-inl.h"

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

inline Bytes every(int8_t byte) { return _mm512_set1_epi8(byte); }
template <int kFrom, int kTo>
inline Bytes move(Bytes v) {
    // What crosses from one byte into the next is masked away.
    const Bytes moved = kFrom > kTo ? _mm512_srli_epi16(v, 2 * (kFrom - kTo) & 15)
                                    : _mm512_slli_epi16(v, 2 * (kTo - kFrom) & 15);
    return _mm512_and_si512(moved, _mm512_set1_epi8(static_cast<char>(3 << 2 * kTo)));
}
inline Bytes merge(Bytes a, Bytes b, Bytes c, Bytes d) {
    return _mm512_or_si512(_mm512_ternarylogic_epi32(a, b, c, 0xFE), d);  // 0xFE: a | b | c
}
inline void store_rows(uint8_t* to, const Bytes (&bytes)[4]) {
    const Bytes low[2] = {_mm512_unpacklo_epi8(bytes[0], bytes[1]), _mm512_unpacklo_epi8(bytes[2], bytes[3])};
    const Bytes high[2] = {_mm512_unpackhi_epi8(bytes[0], bytes[1]),
                           _mm512_unpackhi_epi8(bytes[2], bytes[3])};
    // Rows 4 i ... of each 16; quarters of a register are rows of a matrix to be transposed.
    const Bytes fours[4] = {_mm512_unpacklo_epi16(low[0], low[1]), _mm512_unpackhi_epi16(low[0], low[1]),
                            _mm512_unpacklo_epi16(high[0], high[1]), _mm512_unpackhi_epi16(high[0], high[1])};
    const Bytes first[2] = {_mm512_shuffle_i64x2(fours[0], fours[1], 0x44),
                            _mm512_shuffle_i64x2(fours[2], fours[3], 0x44)};
    const Bytes second[2] = {_mm512_shuffle_i64x2(fours[0], fours[1], 0xEE),
                             _mm512_shuffle_i64x2(fours[2], fours[3], 0xEE)};
    _mm512_store_si512(to, _mm512_shuffle_i64x2(first[0], first[1], 0x88));
    _mm512_store_si512(to + 64, _mm512_shuffle_i64x2(first[0], first[1], 0xDD));
    _mm512_store_si512(to + 128, _mm512_shuffle_i64x2(second[0], second[1], 0x88));
    _mm512_store_si512(to + 192, _mm512_shuffle_i64x2(second[0], second[1], 0xDD));
}

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
