// SPDX-License-Identifier: MIT
/// Changes of order for prefill by tables over tokens on x86, in AVX2. Included by lookup_avx2-inl.h and
/// lookup_avx512-inl.h.

/// q: 16 inputs of m tokens, q_row_bytes apart -> x: int16 [16, tokens]; tokens from m on become 0.
void spread(const int8_t* q, size_t q_row_bytes, int m, int tokens, int16_t* x) {
    for (int t = 0; t < tokens; t += 16) {
        __m128i bytes[16];
        for (int j = 0; j < 16; ++j) {
            bytes[j] = t + j < m ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(
                                       q + static_cast<size_t>(t + j) * q_row_bytes))
                                 : _mm_setzero_si128();
        }
        // Each round moves one bit of a byte's place from its row's number to its column's.
        for (int round = 0; round < 4; ++round) {
            __m128i next[16];
            TRIT_UNROLL
            for (int j = 0; j < 8; ++j) {
                next[2 * j] = _mm_unpacklo_epi8(bytes[j], bytes[j + 8]);
                next[2 * j + 1] = _mm_unpackhi_epi8(bytes[j], bytes[j + 8]);
            }
            std::memcpy(bytes, next, sizeof(bytes));
        }
        for (int i = 0; i < 16; ++i) {
            _mm256_store_si256(reinterpret_cast<__m256i*>(x + i * tokens + t),
                               _mm256_cvtepi8_epi16(bytes[i]));
        }
    }
}

/// sums: int32 [rows, tokens] -> c[j * c_stride + r] for j < m. rows: a multiple of 8.
void gather(const int32_t* sums, int rows, int tokens, int m, int32_t* c, size_t c_stride) {
    for (int r = 0; r < rows; r += 8) {
        for (int t = 0; t < m; t += 8) {
            __m256i lines[8];
            for (int i = 0; i < 8; ++i) {
                lines[i] = _mm256_load_si256(reinterpret_cast<const __m256i*>(sums + (r + i) * tokens + t));
            }
            __m256i pairs[8];
            for (int i = 0; i < 8; i += 2) {
                pairs[i] = _mm256_unpacklo_epi32(lines[i], lines[i + 1]);
                pairs[i + 1] = _mm256_unpackhi_epi32(lines[i], lines[i + 1]);
            }
            __m256i fours[8];  // of rows 0..3 and 4..7: tokens 0 and 4, 1 and 5, 2 and 6, 3 and 7
            for (int i = 0; i < 8; i += 4) {
                fours[i] = _mm256_unpacklo_epi64(pairs[i], pairs[i + 2]);
                fours[i + 1] = _mm256_unpackhi_epi64(pairs[i], pairs[i + 2]);
                fours[i + 2] = _mm256_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
                fours[i + 3] = _mm256_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
            }
            for (int j = 0; j < 8 && t + j < m; ++j) {
                const __m256i line = j < 4 ? _mm256_permute2x128_si256(fours[j], fours[j + 4], 0x20)
                                           : _mm256_permute2x128_si256(fours[j - 4], fours[j], 0x31);
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(c + static_cast<size_t>(t + j) * c_stride + r),
                                    line);
            }
        }
    }
}
