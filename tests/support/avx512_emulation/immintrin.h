// SPDX-License-Identifier: MIT
/// <immintrin.h> with AVX-512 as functions, for a CPU that has AVX2 only: SIMDe's, and what its release in
/// Debian 12 (0.7.4) lacks, written from the pseudo-code of Intel's intrinsics guide.
#ifndef TRIT_AVX512_EMULATION_IMMINTRIN_H
#define TRIT_AVX512_EMULATION_IMMINTRIN_H

#include_next <immintrin.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __GNUC__
// Types of registers as arguments of templates: their attributes do not matter here.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"
#endif

namespace avx512_emulation {

/// A register's lanes in memory.
template <typename T, typename Register>
struct Lanes {
    static constexpr int kCount = sizeof(Register) / sizeof(T);
    alignas(64) T at[kCount];

    Lanes() = default;
    explicit Lanes(Register v) { std::memcpy(at, &v, sizeof(v)); }
    Register whole() const {
        Register v;
        std::memcpy(&v, at, sizeof(v));
        return v;
    }
};

template <typename T, typename Register>
T sum(Register v) {
    T total = 0;
    for (const T lane : Lanes<T, Register>(v).at) {
        total = static_cast<T>(total + lane);
    }
    return total;
}

inline int32_t reduce_add_epi32(__m512i v) { return static_cast<int32_t>(sum<uint32_t>(v)); }
inline int64_t reduce_add_epi64(__m512i v) { return static_cast<int64_t>(sum<uint64_t>(v)); }

inline uint32_t reduce_max_epu32(__m512i v) {
    uint32_t most = 0;
    for (const uint32_t lane : Lanes<uint32_t, __m512i>(v).at) {
        most = lane > most ? lane : most;
    }
    return most;
}

inline __m512i srai_epi32(__m512i v, unsigned bits) {
    Lanes<int32_t, __m512i> lanes(v);
    for (int32_t& lane : lanes.at) {
        lane >>= bits < 31 ? bits : 31;
    }
    return lanes.whole();
}

inline __m512i cvtepi16_epi32(__m256i v) {
    const Lanes<int16_t, __m256i> words(v);
    Lanes<int32_t, __m512i> wide;
    for (int i = 0; i < 16; ++i) {
        wide.at[i] = words.at[i];
    }
    return wide.whole();
}

inline __m128i cvtepi32_epi8(__m512i v) {
    const Lanes<uint32_t, __m512i> wide(v);
    Lanes<uint8_t, __m128i> bytes;
    for (int i = 0; i < 16; ++i) {
        bytes.at[i] = static_cast<uint8_t>(wide.at[i]);
    }
    return bytes.whole();
}

inline __m512i shuffle_i64x2(__m512i a, __m512i b, int which) {
    const Lanes<uint64_t, __m512i> from[2] = {Lanes<uint64_t, __m512i>(a), Lanes<uint64_t, __m512i>(b)};
    Lanes<uint64_t, __m512i> to;
    for (int i = 0; i < 8; ++i) {
        to.at[i] = from[i / 4].at[(which >> i / 2 * 2 & 3) * 2 + i % 2];
    }
    return to.whole();
}

// Two halves by AVX, which rounds as AVX-512 does.
inline __m512 join(__m256 low, __m256 high) {
    Lanes<float, __m512> both;
    std::memcpy(both.at, &low, sizeof(low));
    std::memcpy(both.at + 8, &high, sizeof(high));
    return both.whole();
}

inline __m512 cvtepi32_ps(__m512i v) {
    return join(_mm256_cvtepi32_ps(_mm512_castsi512_si256(v)),
                _mm256_cvtepi32_ps(_mm512_extracti64x4_epi64(v, 1)));
}

inline __m512i cvtps_epi32(__m512 v) {
    const Lanes<float, __m512> lanes(v);
    const __m256i halves[2] = {_mm256_cvtps_epi32(_mm256_load_ps(lanes.at)),
                               _mm256_cvtps_epi32(_mm256_load_ps(lanes.at + 8))};
    __m512i both;
    std::memcpy(&both, halves, sizeof(both));
    return both;
}

inline __m512 cvtph_ps(__m256i v) {
    return join(_mm256_cvtph_ps(_mm256_castsi256_si128(v)), _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1)));
}

inline __m512 maskz_loadu_ps(__mmask16 mask, const float* from) {
    Lanes<float, __m512> lanes;
    for (int i = 0; i < 16; ++i) {
        lanes.at[i] = mask >> i & 1 ? from[i] : 0.0f;
    }
    return lanes.whole();
}

inline void mask_storeu_ps(float* to, __mmask16 mask, __m512 v) {
    const Lanes<float, __m512> lanes(v);
    for (int i = 0; i < 16; ++i) {
        if (mask >> i & 1) {
            to[i] = lanes.at[i];
        }
    }
}

}  // namespace avx512_emulation

#ifdef __GNUC__
#pragma GCC diagnostic pop
#endif

#undef _mm512_cvtepi16_epi32
#undef _mm512_cvtepi32_epi8
#undef _mm512_cvtepi32_ps
#undef _mm512_cvtph_ps
#undef _mm512_cvtps_epi32
#undef _mm512_mask_storeu_ps
#undef _mm512_maskz_loadu_ps
#undef _mm512_reduce_add_epi32
#undef _mm512_reduce_add_epi64
#undef _mm512_reduce_max_epu32
#undef _mm512_shuffle_i64x2
#undef _mm512_srai_epi32
#define _mm512_cvtepi16_epi32 avx512_emulation::cvtepi16_epi32
#define _mm512_cvtepi32_epi8 avx512_emulation::cvtepi32_epi8
#define _mm512_cvtepi32_ps avx512_emulation::cvtepi32_ps
#define _mm512_cvtph_ps avx512_emulation::cvtph_ps
#define _mm512_cvtps_epi32 avx512_emulation::cvtps_epi32
#define _mm512_mask_storeu_ps avx512_emulation::mask_storeu_ps
#define _mm512_maskz_loadu_ps avx512_emulation::maskz_loadu_ps
#define _mm512_reduce_add_epi32 avx512_emulation::reduce_add_epi32
#define _mm512_reduce_add_epi64 avx512_emulation::reduce_add_epi64
#define _mm512_reduce_max_epu32 avx512_emulation::reduce_max_epu32
#define _mm512_shuffle_i64x2 avx512_emulation::shuffle_i64x2
#define _mm512_srai_epi32 avx512_emulation::srai_epi32

// SIMDe 0.7.4 gives this name the arguments of another function.
#undef _mm512_madd_epi16
#define _mm512_madd_epi16 simde_mm512_madd_epi16

#endif  // TRIT_AVX512_EMULATION_IMMINTRIN_H
