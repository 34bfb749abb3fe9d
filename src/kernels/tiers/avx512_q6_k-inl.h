// SPDX-License-Identifier: MIT
/// The head's dot product in q6_K for the AVX-512 tiers. Included after avx512_panel-inl.h, inside the target
/// region and the anonymous namespace of a tier.
///
/// llama.cpp's own is written for 256 bits and takes twice as long as memory needs to deliver the rows. A
/// register here has the first 128 inputs of a block in its lower half and the others in its upper half, so
/// that the halves' sums are llama.cpp's 8 lanes; two rows share what is done per lane in float.

constexpr size_t kQ6Ahead = 6144;

/// The two halves' 32 bytes each of a register, from two addresses.
__m512i two_halves(const uint8_t* low, const uint8_t* high) {
    return _mm512_inserti64x4(
        _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(low))),
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(high)), 1);
}

/// A row's block: low nibbles of fields 0 and 2, of 1 and 3, and the upper bits of all.
struct Q6 {
    __m512i nibbles[2];
    __m512i upper;

    void load(const uint8_t* w) {
        nibbles[0] = two_halves(w, w + 64);
        nibbles[1] = two_halves(w + 32, w + 96);
        upper = zload(w + 128);
    }

    /// Codes 0..63 of field f (a constant once loops are unrolled), 32 inputs in each half.
    __m512i field(int f) const {
        const __m512i low =
            _mm512_and_si512(_mm512_srli_epi16(nibbles[f % 2], f / 2 * 4U), _mm512_set1_epi8(15));
        const __m512i high =
            f < 2 ? _mm512_slli_epi16(upper, 4U - 2 * f) : _mm512_srli_epi16(upper, 2 * f - 4U);
        return _mm512_ternarylogic_epi32(high, _mm512_set1_epi8(48), low, 0xEA);  // (high & 48) | low
    }
};

/// acc[16 lanes] += scale[i] * pairs[i], neighbours added. (As one instruction for GCC, see dot().)
__m512i dot_words(__m512i acc, __m512i scale, __m512i pairs) {
#if defined(__GNUC__) && !defined(__clang__) && !defined(TRIT_EMULATE_AVX512)
    __asm__("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(scale), "v"(pairs));
    return acc;
#else
    return _mm512_dpwssd_epi32(acc, scale, pairs);
#endif
}

/// Where the scales of a field are among those of two rows (16 words each).
struct Q6Scales {
    __m512i field[4];
    __m512i field_of_second[4];

    Q6Scales() {
        for (int f = 0; f < 4; ++f) {
            alignas(64) uint16_t index[32];
            for (int i = 0; i < 32; ++i) {
                index[i] = static_cast<uint16_t>(i / 16 * 8 + 2 * f + i % 16 / 8);
            }
            field[f] = zload(index);
            field_of_second[f] = _mm512_add_epi16(field[f], _mm512_set1_epi16(16));
        }
    }
};

/// Two rows times M tokens. ahead: distance of the bytes that are wanted next.
template <int M>
void q6_k_two_rows(int64_t k, const uint8_t* const w[2], size_t ahead, const uint8_t* tokens,
                   size_t token_bytes, const Q6Scales& where, __m512 acc[M]) {
    TRIT_UNROLL
    for (int j = 0; j < M; ++j) {
        acc[j] = _mm512_setzero_ps();
    }
    const uint8_t* next = w[0] + ahead;
    for (int64_t b = 0; b < k / TRIT_K_BLOCK; ++b, tokens += TRIT_Q8_K_BYTES) {
        const uint8_t* block[2] = {w[0] + b * TRIT_Q6_K_BYTES, w[1] + b * TRIT_Q6_K_BYTES};
        // Both rows' next bytes, in one line after the other.
        TRIT_UNROLL
        for (int line = 0; line < 7; ++line) {
            prefetch(next + 64 * line);
        }
        next += 2 * TRIT_Q6_K_BYTES;
        const __m512i scales = _mm512_cvtepi8_epi16(_mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block[0] + 192))),
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(block[1] + 192)), 1));
        uint16_t half[2];
        std::memcpy(&half[0], block[0] + 208, sizeof(half[0]));
        std::memcpy(&half[1], block[1] + 208, sizeof(half[1]));
        const __m512 d = _mm512_cvtph_ps(
            _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_set1_epi16(static_cast<short>(half[0]))),
                                    _mm_set1_epi16(static_cast<short>(half[1])), 1));
        Q6 codes[2];
        codes[0].load(block[0]);
        codes[1].load(block[1]);
        __m512i sums[2][M] = {};
        TRIT_UNROLL
        for (int f = 0; f < 4; ++f) {
            const __m512i scale[2] = {_mm512_permutexvar_epi16(where.field[f], scales),
                                      _mm512_permutexvar_epi16(where.field_of_second[f], scales)};
            const __m512i u[2] = {codes[0].field(f), codes[1].field(f)};
            TRIT_UNROLL
            for (int j = 0; j < M; ++j) {
                const uint8_t* q = tokens + static_cast<size_t>(j) * token_bytes + 4 + 32 * f;
                const __m512i act = two_halves(q, q + 128);
                sums[0][j] = dot_words(sums[0][j], scale[0], _mm512_maddubs_epi16(u[0], act));
                sums[1][j] = dot_words(sums[1][j], scale[1], _mm512_maddubs_epi16(u[1], act));
            }
        }
        TRIT_UNROLL
        for (int j = 0; j < M; ++j) {
            const uint8_t* token = tokens + static_cast<size_t>(j) * token_bytes;
            float token_scale = 0.0f;
            std::memcpy(&token_scale, token, sizeof(token_scale));
            // The codes are 32 too large; bsums are the sums of 16 inputs.
            const __m512i bsums = two_halves(token + 260, token + 260);
            const __m512i excess = _mm512_slli_epi32(_mm512_madd_epi16(bsums, scales), 5);
            const __m512i both = _mm512_add_epi32(_mm512_shuffle_i64x2(sums[0][j], sums[1][j], 0x44),
                                                  _mm512_shuffle_i64x2(sums[0][j], sums[1][j], 0xEE));
            acc[j] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_set1_ps(token_scale), d),
                                     _mm512_cvtepi32_ps(_mm512_sub_epi32(both, excess)), acc[j]);
        }
    }
}

/// ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)) of 8 lanes.
float sum_eight(__m256 v) {
    __m128 sum = _mm_add_ps(_mm256_extractf128_ps(v, 1), _mm256_castps256_ps128(v));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

template <int M>
void q6_k_rows(int64_t k, const uint8_t* w, size_t w_row_bytes, int64_t n, const uint8_t* tokens,
               size_t token_bytes, float* const* out) {
    const Q6Scales where;
    for (int64_t i = 0; i < n; i += 2) {
        const bool alone = i + 1 == n;
        const uint8_t* first = w + static_cast<size_t>(i) * w_row_bytes;
        const uint8_t* rows[2] = {first, alone ? first : first + w_row_bytes};
        __m512 acc[M];
        q6_k_two_rows<M>(k, rows, kQ6Ahead, tokens, token_bytes, where, acc);
        TRIT_UNROLL
        for (int j = 0; j < M; ++j) {
            out[j][i] = sum_eight(_mm512_castps512_ps256(acc[j]));
            if (!alone) {
                out[j][i + 1] =
                    sum_eight(_mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(acc[j]), 1)));
            }
        }
    }
}

void q6_k(int64_t k, const uint8_t* w, size_t w_row_bytes, int64_t n, const uint8_t* tokens,
          size_t token_bytes, int m, float* const* out) {
    constexpr decltype(&q6_k_rows<1>) kRows[TRIT_Q6_K_TOKENS] = {
        q6_k_rows<1>, q6_k_rows<2>, q6_k_rows<3>, q6_k_rows<4>, q6_k_rows<5>, q6_k_rows<6>, q6_k_rows<7>};
    kRows[m - 1](k, w, w_row_bytes, n, tokens, token_bytes, out);
}

constexpr trit_tier with_q6_k(trit_tier tier) {
    tier.q6_k = q6_k;
    return tier;
}
