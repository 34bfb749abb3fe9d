// SPDX-License-Identifier: MIT
/// Panels of five trits per byte for tiers with VBMI. Included after avx512_panel-inl.h, inside the target
/// region and the anonymous namespace of a tier.

/// Five trits of 64 bytes: the fifth as 81 u4 in `top`, the others as 2-bit fields in `fields`.
struct Trits {
    __m512i top;
    __m512i fields;
};

/// table: fields of u0 + 3 u1 + 9 u2 + 27 u3 for 0..80 (vpermi2b looks up 128 bytes at once).
///
/// A byte is 81 u4 + rest. Taking 81 away wraps round where there is no 81 left, so that the smaller of the
/// two is the right one; twice, and the rest is left.
Trits split(__m512i bytes, __m512i eighty_one, const __m512i table[2]) {
    const __m512i once = _mm512_min_epu8(bytes, _mm512_sub_epi8(bytes, eighty_one));
    const __m512i rest = _mm512_min_epu8(once, _mm512_sub_epi8(once, eighty_one));
    return {_mm512_sub_epi8(bytes, rest), _mm512_permutex2var_epi8(table[0], rest, table[1])};
}

struct TritTable {
    alignas(64) uint8_t fields[128];
    constexpr TritTable() : fields{} {
        for (int i = 0; i < 81; ++i) {
            fields[i] = static_cast<uint8_t>(i % 3 | i / 3 % 3 << 2 | i / 9 % 3 << 4 | i / 27 << 6);
        }
    }
};
constexpr TritTable kTritTable;

/// One or two tokens, 5 trits, half a panel: codes are masked, not shifted, so each of the 5 fields has
/// accumulators of its own, of weight 1, 4, 16, 64 and 81.
template <int M>
void masked_half(int64_t k, const uint8_t* half, const int8_t* q, size_t q_row_bytes, int32_t* c) {
    const __m512i table[2] = {zload(kTritTable.fields), zload(kTritTable.fields + 64)};
    const __m512i eighty_one = _mm512_set1_epi8(81);
    const __m512i mask[4] = {_mm512_set1_epi8(0x03), _mm512_set1_epi8(0x0C), _mm512_set1_epi8(0x30),
                             _mm512_set1_epi8(static_cast<char>(0xC0))};
    __m512i acc[M][5][2] = {};
    for (int64_t first = 0; first < k; first += 20, half += 128, q += 20) {
        TRIT_UNROLL
        for (int g = 0; g < 2; ++g) {
            prefetch(half + kPanelAhead + 64 * g);
            const Trits trits = split(zload(half + 64 * g), eighty_one, table);
            TRIT_UNROLL
            for (int f = 0; f < 5; ++f) {
                const __m512i u = f == 4 ? trits.top : _mm512_and_si512(trits.fields, mask[f % 4]);
                TRIT_UNROLL
                for (int j = 0; j < M; ++j) {
                    const int8_t* four = q + static_cast<size_t>(j) * q_row_bytes + 4 * f;
                    acc[j][f][g] = dot(acc[j][f][g], u, repeat_four(four));
                }
            }
        }
    }
    TRIT_UNROLL
    for (int j = 0; j < M; ++j) {
        TRIT_UNROLL
        for (int g = 0; g < 2; ++g) {
            const __m512i low = _mm512_add_epi32(acc[j][0][g], _mm512_srai_epi32(acc[j][1][g], 2));
            const __m512i high =
                _mm512_add_epi32(_mm512_srai_epi32(acc[j][2][g], 4), _mm512_srai_epi32(acc[j][3][g], 6));
            // A multiple of 81 times the inverse of 81 modulo 2^32 is the quotient.
            const __m512i top =
                _mm512_mullo_epi32(acc[j][4][g], _mm512_set1_epi32(static_cast<int>(0x781948B1u)));
            _mm512_storeu_si512(c + j * TRIT_PANEL_ROWS + 16 * g,
                                _mm512_add_epi32(_mm512_add_epi32(low, high), top));
        }
    }
}

/// M tokens, 5 trits, half a panel, codes straight from it.
///
/// Fields take turns with kSets sets of accumulators: with one set of a few, each product would wait for the
/// one before.
template <int M>
void few_tokens_half(int64_t k, const uint8_t* half, const int8_t* q, size_t q_row_bytes, int32_t* c) {
    constexpr int kSets = M <= 3 ? 3 : M <= 5 ? 2 : 1;
    const __m512i table[2] = {zload(kTritTable.fields), zload(kTritTable.fields + 64)};
    const __m512i eighty_one = _mm512_set1_epi8(81);
    const __m512i mask = _mm512_set1_epi8(3);
    __m512i acc[kSets][M][2] = {};
    for (int64_t first = 0; first < k; first += 20, half += 128, q += 20) {
        Trits trits[2];
        TRIT_UNROLL
        for (int g = 0; g < 2; ++g) {
            prefetch(half + kPanelAhead + 64 * g);
            trits[g] = split(zload(half + 64 * g), eighty_one, table);
        }
        TRIT_UNROLL
        for (int f = 0; f < 5; ++f) {
            __m512i u[2];
            TRIT_UNROLL
            for (int g = 0; g < 2; ++g) {
                // The two low bits of 0, 81 and 162 are 0, 1 and 2.
                u[g] = _mm512_and_si512(
                    f == 4 ? trits[g].top : _mm512_srli_epi16(trits[g].fields, static_cast<unsigned>(2 * f)),
                    mask);
            }
            TRIT_UNROLL
            for (int j = 0; j < M; ++j) {
                const __m512i act = repeat_four(q + static_cast<size_t>(j) * q_row_bytes + 4 * f);
                acc[f % kSets][j][0] = dot(acc[f % kSets][j][0], u[0], act);
                acc[f % kSets][j][1] = dot(acc[f % kSets][j][1], u[1], act);
            }
        }
    }
    TRIT_UNROLL
    for (int j = 0; j < M; ++j) {
        TRIT_UNROLL
        for (int g = 0; g < 2; ++g) {
            __m512i sum = acc[0][j][g];
            TRIT_UNROLL
            for (int set = 1; set < kSets; ++set) {
                sum = _mm512_add_epi32(sum, acc[set][j][g]);
            }
            _mm512_storeu_si512(c + j * TRIT_PANEL_ROWS + 16 * g, sum);
        }
    }
}

template <int M>
void few_tokens_5_trits(int64_t k, const uint8_t* panel, const int8_t* q, size_t q_row_bytes, int32_t* c) {
    constexpr auto kHalf = M <= 2 ? masked_half<(M <= 2 ? M : 1)> : few_tokens_half<(M > 2 ? M : 3)>;
    kHalf(k, panel, q, q_row_bytes, c);
    kHalf(k, panel + trit_panel_bytes(TRIT_PACKING_5_TRITS, k) / 2, q, q_row_bytes, c + TRIT_PANEL_ROWS / 2);
}

template <typename Tiles>
void many_tokens_5_trits(int64_t k, const uint8_t* panel, const int8_t* q, size_t q_row_bytes, int m,
                         int32_t* c) {
    constexpr int kInputs = Tiles::kTritChunk;
    static_assert(kInputs % 20 == 0, "whole steps");
    alignas(64) uint8_t bytes[kInputs * TRIT_PANEL_ROWS];
    const __m512i table[2] = {zload(kTritTable.fields), zload(kTritTable.fields + 64)};
    const __m512i eighty_one = _mm512_set1_epi8(81);
    const __m512i mask = _mm512_set1_epi8(3);
    const uint8_t* half[2] = {panel, panel + trit_panel_bytes(TRIT_PACKING_5_TRITS, k) / 2};
    for (int64_t chunk = 0; chunk < k; chunk += kInputs) {
        const int inputs = static_cast<int>(k - chunk < kInputs ? k - chunk : kInputs);
        uint8_t* out = bytes;
        for (int step = 0; step < inputs; step += 20, out += 5 * 256) {
            TRIT_UNROLL
            for (int g = 0; g < 4; ++g) {
                const uint8_t* in = half[g / 2] + 64 * (g % 2);
                prefetch(in + kPanelAhead);
                const Trits trits = split(zload(in), eighty_one, table);
                TRIT_UNROLL
                for (int f = 0; f < 4; ++f) {
                    _mm512_store_si512(
                        out + 256 * f + 64 * g,
                        _mm512_and_si512(_mm512_srli_epi16(trits.fields, static_cast<unsigned>(2 * f)),
                                         mask));
                }
                // The two low bits of 0, 81 and 162 are 0, 1 and 2.
                _mm512_store_si512(out + 256 * 4 + 64 * g, _mm512_and_si512(trits.top, mask));
            }
            half[0] += 128;
            half[1] += 128;
        }
        Tiles::run(inputs / 4, bytes, q + chunk, q_row_bytes, m, chunk == 0, c);
    }
}

template <typename Tiles>
void panel_5_trits(int64_t k, const uint8_t* panel, const int8_t* q, size_t q_row_bytes, int m, int32_t* c) {
    static constexpr decltype(&few_tokens_5_trits<1>) kFew[] = {
        few_tokens_5_trits<1>, few_tokens_5_trits<2>, few_tokens_5_trits<3>, few_tokens_5_trits<4>,
        few_tokens_5_trits<5>, few_tokens_5_trits<6>, few_tokens_5_trits<7>, few_tokens_5_trits<8>};
    if (m > Tiles::kDirect) {
        return many_tokens_5_trits<Tiles>(k, panel, q, q_row_bytes, m, c);
    }
    in_passes(kFew, m, q, q_row_bytes, c, k, panel);
}

/// Tiles: what multiplies an unpacked chunk, such as DotTiles.
template <typename Tiles>
constexpr trit_tier with_trits(trit_tier tier) {
    tier.panel[TRIT_PACKING_5_TRITS] = panel_5_trits<Tiles>;
    return tier;
}
