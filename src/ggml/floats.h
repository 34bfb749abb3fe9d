// SPDX-License-Identifier: MIT
/// A register of floats, as the engine's other float code is compiled: for the CPU that the build is for.
///
/// Floats::kCount lanes, and Floats::kSums registers for sums that grow side by side, of kRegisters in all;
/// half precision is read, never computed with. kSumOrder and kFourSumsOrder are the lanes in the order in
/// which sum() and four_sums() add them: pairs of neighbours, then pairs of pairs, and so on. Without one of
/// these instruction sets TRIT_HAS_FLOATS is not defined.
#ifndef TRIT_GGML_FLOATS_H
#define TRIT_GGML_FLOATS_H

#include "kernels/tier.h"
#include "vec.h"

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define TRIT_HAS_FLOATS
#include <immintrin.h>

namespace trit {

struct Floats {
    static constexpr int kCount = 16;
    static constexpr int kSums = 8;
    static constexpr int kRegisters = 32;
    static constexpr int kSumOrder[kCount] = {0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15};
    static constexpr int kFourSumsOrder[kCount] = {0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15};
    __m512 v;

    static Floats set(float x) { return {_mm512_set1_ps(x)}; }
    static Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
    static Floats load(const ggml_fp16_t* p) {
        return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
    }
    void store(float* p) const { _mm512_storeu_ps(p, v); }
    Floats fma(Floats a, Floats b) const { return {_mm512_fmadd_ps(a.v, b.v, v)}; }  ///< *this + a b
    Floats operator+(Floats b) const { return {_mm512_add_ps(v, b.v)}; }
    Floats operator-(Floats b) const { return {_mm512_sub_ps(v, b.v)}; }
    Floats operator*(Floats b) const { return {_mm512_mul_ps(v, b.v)}; }
    Floats max(Floats b) const { return {_mm512_max_ps(v, b.v)}; }
    Floats exp() const { return {ggml_v_expf(v)}; }
    float sum() const { return _mm512_reduce_add_ps(v); }
    /// out[i] = x[i].sum(), with another order of additions.
    static void four_sums(const Floats* x, float* out) {
        __m256 half[4];
        for (int i = 0; i < 4; ++i) {
            half[i] = _mm256_add_ps(_mm512_castps512_ps256(x[i].v),
                                    _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x[i].v), 1)));
        }
        const __m256 sums =
            _mm256_hadd_ps(_mm256_hadd_ps(half[0], half[1]), _mm256_hadd_ps(half[2], half[3]));
        _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1)));
    }
};

}  // namespace trit

#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define TRIT_HAS_FLOATS
#include <immintrin.h>

namespace trit {

struct Floats {
    static constexpr int kCount = 8;
    static constexpr int kSums = 8;
    static constexpr int kRegisters = 16;
    static constexpr int kSumOrder[kCount] = {0, 4, 2, 6, 1, 5, 3, 7};
    static constexpr int kFourSumsOrder[kCount] = {0, 1, 2, 3, 4, 5, 6, 7};
    __m256 v;

    static Floats set(float x) { return {_mm256_set1_ps(x)}; }
    static Floats load(const float* p) { return {_mm256_loadu_ps(p)}; }
    static Floats load(const ggml_fp16_t* p) {
        return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
    }
    void store(float* p) const { _mm256_storeu_ps(p, v); }
    Floats fma(Floats a, Floats b) const { return {_mm256_fmadd_ps(a.v, b.v, v)}; }  ///< *this + a b
    Floats operator+(Floats b) const { return {_mm256_add_ps(v, b.v)}; }
    Floats operator-(Floats b) const { return {_mm256_sub_ps(v, b.v)}; }
    Floats operator*(Floats b) const { return {_mm256_mul_ps(v, b.v)}; }
    Floats max(Floats b) const { return {_mm256_max_ps(v, b.v)}; }
    Floats exp() const { return {ggml_v_expf(v)}; }
    float sum() const {
        __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        four = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
    }
    /// out[i] = x[i].sum(), with another order of additions.
    static void four_sums(const Floats* x, float* out) {
        const __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(x[0].v, x[1].v), _mm256_hadd_ps(x[2].v, x[3].v));
        _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1)));
    }
};

/// 16 lanes for what keeps to the order of Floats in other ways, where the CPU turns out to have AVX-512 F.
#define TRIT_HAS_WIDE_FLOATS
TRIT_TARGET_BEGIN("avx512f")
struct WideFloats {
    static constexpr int kCount = 16;
    static constexpr int kRegisters = 32;
    __m512 v;

    static WideFloats set(float x) { return {_mm512_set1_ps(x)}; }
    static WideFloats load(const float* p) { return {_mm512_loadu_ps(p)}; }
    void store(float* p) const { _mm512_storeu_ps(p, v); }
    WideFloats fma(WideFloats a, WideFloats b) const { return {_mm512_fmadd_ps(a.v, b.v, v)}; }
    WideFloats operator+(WideFloats b) const { return {_mm512_add_ps(v, b.v)}; }
    WideFloats operator*(WideFloats b) const { return {_mm512_mul_ps(v, b.v)}; }
};
TRIT_TARGET_END

}  // namespace trit

#elif defined(__ARM_NEON) && defined(__aarch64__)
#define TRIT_HAS_FLOATS
#include <arm_neon.h>

namespace trit {

struct Floats {
    static constexpr int kCount = 4;
    static constexpr int kSums = 16;
    static constexpr int kRegisters = 32;
    static constexpr int kSumOrder[kCount] = {0, 1, 2, 3};
    static constexpr int kFourSumsOrder[kCount] = {0, 1, 2, 3};
    float32x4_t v;

    static Floats set(float x) { return {vdupq_n_f32(x)}; }
    static Floats load(const float* p) { return {vld1q_f32(p)}; }
    static Floats load(const ggml_fp16_t* p) {
        return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p))))};
    }
    void store(float* p) const { vst1q_f32(p, v); }
    Floats fma(Floats a, Floats b) const { return {vfmaq_f32(v, a.v, b.v)}; }  ///< *this + a b
    Floats operator+(Floats b) const { return {vaddq_f32(v, b.v)}; }
    Floats operator-(Floats b) const { return {vsubq_f32(v, b.v)}; }
    Floats operator*(Floats b) const { return {vmulq_f32(v, b.v)}; }
    Floats max(Floats b) const { return {vmaxq_f32(v, b.v)}; }
    Floats exp() const {
#if defined(__ARM_FEATURE_SVE)  // then upstream has it for those registers alone
        float lane[kCount];
        store(lane);
        const svbool_t four = svwhilelt_b32(0, kCount);
        svst1_f32(four, lane, ggml_v_expf(four, svld1_f32(four, lane)));
        return load(lane);
#else
        return {ggml_v_expf(v)};
#endif
    }
    float sum() const { return vaddvq_f32(v); }
    /// out[i] = x[i].sum()
    static void four_sums(const Floats* x, float* out) {
        vst1q_f32(out, vpaddq_f32(vpaddq_f32(x[0].v, x[1].v), vpaddq_f32(x[2].v, x[3].v)));
    }
};

}  // namespace trit

#endif

#endif  // TRIT_GGML_FLOATS_H
