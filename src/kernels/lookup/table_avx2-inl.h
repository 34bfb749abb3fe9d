// SPDX-License-Identifier: MIT
/// TL1 and TL2 kernels (table-inl.h) for AVX2: their vocabulary.
///
///     Bytes                 a register: one number of 8 bits for each of kRegisterRows rows
///     Words                 16-bit sums of these rows, in an order that only this file knows
///     Entries               a table's 16 entries of 8 bits
///     supported()           whether this CPU has the instructions
///     times(x, weights)     x times each of 16 weights -1, 0, +1; |x| <= 8
///     load_table            the same 16 entries for every row
///     low_half, high_half   of each byte, as look_up takes an index
///     look_up               each row's entry
///     begin, negate         applies the signs of a step's triples, one after the other
///     add_nibbles           sums += low + 16 * high
///     add_bytes_of_words    sums += low + 256 * high, low without a sign
///     every                 the same byte everywhere
///     move<from, to>        the code at bits 2 from of each byte, at bits 2 to; all else 0
///     merge                 of four moved codes: their byte
///     store_rows            for each row its 4 bytes side by side
///     widen                 adds the rows' sums to 32-bit ones in memory (first: overwrites them)
#include "kernels/tiers/simd.h"

#ifdef TRIT_X86

TRIT_TARGET_BEGIN("avx2")
namespace {

#include "kernels/lookup/table_x86-inl.h"

using Bytes = __m256i;
constexpr int kRegisterRows = 32;

struct Words {
    __m256i even;  ///< rows 0..7 and 16..23
    __m256i odd;   ///< the others
};

inline int supported() { return trit_x86_has(TRIT_X86_AVX2); }

inline Bytes load(const uint8_t* p) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(p)); }
inline Bytes load_table(const int8_t* p) {
    return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Bytes low_half(Bytes v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
inline Bytes high_half(Bytes v) { return _mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(15)); }
inline Bytes look_up(Bytes table, Bytes index) { return _mm256_shuffle_epi8(table, index); }
inline Bytes add(Bytes a, Bytes b) { return _mm256_add_epi8(a, b); }

/// Signs of 8 triples, the next one's in bit 7. Bit 0 of `now` is set, so that it is never 0, for which
/// vpsignb would give 0; the last triple's sign, which was there, is taken from `all`.
struct Signs {
    Bytes now;
    Bytes all;
};

inline Signs begin(Bytes signs) { return {_mm256_or_si256(signs, _mm256_set1_epi8(1)), signs}; }
inline Bytes sign_of(const Signs& signs, int triple) {
    return triple < 7 ? signs.now : _mm256_or_si256(_mm256_slli_epi16(signs.all, 7), _mm256_set1_epi8(1));
}
inline Signs next(const Signs& signs) { return {_mm256_add_epi8(signs.now, signs.now), signs.all}; }
inline Bytes negate(Bytes v, Bytes sign) { return _mm256_sign_epi8(v, sign); }

inline Bytes every(int8_t byte) { return _mm256_set1_epi8(byte); }
template <int kFrom, int kTo>
inline Bytes move(Bytes v) {
    // What crosses from one byte into the next is masked away.
    const Bytes moved = kFrom > kTo ? _mm256_srli_epi16(v, 2 * (kFrom - kTo) & 15)
                                    : _mm256_slli_epi16(v, 2 * (kTo - kFrom) & 15);
    return _mm256_and_si256(moved, _mm256_set1_epi8(static_cast<char>(3 << 2 * kTo)));
}
inline Bytes merge(Bytes a, Bytes b, Bytes c, Bytes d) {
    return _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d));
}
inline void store_rows(uint8_t* to, const Bytes (&bytes)[4]) {
    const __m256i low[2] = {_mm256_unpacklo_epi8(bytes[0], bytes[1]),
                            _mm256_unpacklo_epi8(bytes[2], bytes[3])};
    const __m256i high[2] = {_mm256_unpackhi_epi8(bytes[0], bytes[1]),
                             _mm256_unpackhi_epi8(bytes[2], bytes[3])};
    // Rows 4 i ... of the first 16, and of the second.
    const __m256i fours[4] = {_mm256_unpacklo_epi16(low[0], low[1]), _mm256_unpackhi_epi16(low[0], low[1]),
                              _mm256_unpacklo_epi16(high[0], high[1]),
                              _mm256_unpackhi_epi16(high[0], high[1])};
    auto* p = reinterpret_cast<__m256i*>(to);
    _mm256_store_si256(p, _mm256_permute2x128_si256(fours[0], fours[1], 0x20));
    _mm256_store_si256(p + 1, _mm256_permute2x128_si256(fours[2], fours[3], 0x20));
    _mm256_store_si256(p + 2, _mm256_permute2x128_si256(fours[0], fours[1], 0x31));
    _mm256_store_si256(p + 3, _mm256_permute2x128_si256(fours[2], fours[3], 0x31));
}

inline Words add_nibbles(Words sums, Bytes low, Bytes high) {
    const __m256i worth = _mm256_set1_epi16(0x1001);
    return {_mm256_add_epi16(sums.even, _mm256_maddubs_epi16(worth, _mm256_unpacklo_epi8(low, high))),
            _mm256_add_epi16(sums.odd, _mm256_maddubs_epi16(worth, _mm256_unpackhi_epi8(low, high)))};
}

inline Words add_bytes_of_words(Words sums, Bytes low, Bytes high) {
    return {_mm256_add_epi16(sums.even, _mm256_unpacklo_epi8(low, high)),
            _mm256_add_epi16(sums.odd, _mm256_unpackhi_epi8(low, high))};
}

inline Words add_bytes_of_words(Words sums, Bytes low, Bytes high, Bytes sign) {
    return {_mm256_add_epi16(sums.even, _mm256_sign_epi16(_mm256_unpacklo_epi8(low, high),
                                                          _mm256_unpacklo_epi8(sign, sign))),
            _mm256_add_epi16(sums.odd, _mm256_sign_epi16(_mm256_unpackhi_epi8(low, high),
                                                         _mm256_unpackhi_epi8(sign, sign)))};
}

inline void widen(Words sums, bool first, int32_t* to) {
    const __m128i eights[4] = {_mm256_castsi256_si128(sums.even), _mm256_castsi256_si128(sums.odd),
                               _mm256_extracti128_si256(sums.even, 1), _mm256_extracti128_si256(sums.odd, 1)};
    for (int i = 0; i < 4; ++i) {
        auto* p = reinterpret_cast<__m256i*>(to + 8 * i);
        const __m256i wide = _mm256_cvtepi16_epi32(eights[i]);
        _mm256_storeu_si256(p, first ? wide : _mm256_add_epi32(_mm256_loadu_si256(p), wide));
    }
}

#include "kernels/lookup/table-inl.h"

}  // namespace
TRIT_TARGET_END

#else
#include "kernels/lookup/absent-inl.h"
#endif
