// SPDX-License-Identifier: MIT
/// Contract of the ternary kernels: what a caller may rely on, for every tier (instruction set).
///
/// Names: `m` tokens, `n` output rows, `k` inputs. Weights are [n, k], activations [m, k], results [m, n].
/// A weight t in {-1, 0, +1} is stored as the code u = t + 1 in {0, 1, 2}.
#ifndef TRIT_H
#define TRIT_H

#include <stddef.h>
#include <stdint.h>

#if !defined(_WIN32)
#define TRIT_API __attribute__((visibility("default")))
#elif defined(TRIT_BUILD)
#define TRIT_API __declspec(dllexport)
#else
#define TRIT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/// i2_s: weights per block, and bytes per block. The bytes are described in docs/encodings.md.
enum { TRIT_I2_S_BLOCK = 128, TRIT_I2_S_BLOCK_BYTES = 32 };

/// Quantises one token's activations to int8.
///
/// s = 127 / max(max|x|, 1e-5); q[i] = clamp(round_half_even(x[i] * s), -128, 127)   (all in float32)
/// from "The Era of 1-bit LLMs: Training Tips, Code and FAQ". If an x[i] is NaN or infinite, then q is all
/// zero and *scale is NaN, so that every result computed from it is NaN: a broken input is never hidden.
///
/// @param k      number of activations, a positive multiple of 32
/// @param x      float [k]
/// @param q      int8 [k], written
/// @param scale  written: s
/// @param sum    written: sum of q, exact for k < 2^24
typedef void (*trit_quantize_fn)(int64_t k, const float* x, int8_t* q, float* scale, int32_t* sum);

/// Integer products of i2_s weights and int8 activations: c[j * c_stride + i] = sum over l of u[i][l] *
/// q[j][l].
///
/// Exact: no intermediate saturates or wraps for any code (3 included, counted as 3), any int8 and any k <=
/// 2^20. A row's sum does not depend on n or m: one token alone gives the same bits as inside a batch. Reads
/// n * k / 4 bytes of w and m * k bytes of q, no byte more; writes n * m elements of c. No alignment needed.
///
/// @param k            inputs, a multiple of 128
/// @param w            codes in i2_s blocks, row-major
/// @param w_row_bytes  distance of two rows in w, >= k / 4
/// @param n            output rows, >= 0
/// @param q            int8 [m, k]
/// @param q_row_bytes  distance of two tokens in q, >= k
/// @param m            tokens, >= 0
/// @param c            int32 [m, n], written
/// @param c_stride     distance of two tokens in c, in elements, >= n
typedef void (*trit_i2_s_fn)(int64_t k, const uint8_t* w, size_t w_row_bytes, int n, const int8_t* q,
                             size_t q_row_bytes, int m, int32_t* c, size_t c_stride);

/// One instruction set's kernels. src/tiers/<name>.cpp defines `trit_tier_<name>`.
typedef struct trit_tier {
    const char* name;      ///< file stem, value of TRIT_TIER
    const char* features;  ///< every CPU feature that the tier's code needs
    int rank;              ///< the supported tier with the highest rank is tried first
    int (*supported)(void);
    trit_quantize_fn quantize;
    trit_i2_s_fn i2_s;
} trit_tier;

/// Number of tiers compiled in, those that this CPU cannot run included.
TRIT_API int trit_tier_count(void);
/// The i-th tier, ordered by falling rank; NULL if i is out of range.
TRIT_API const trit_tier* trit_tier_at(int i);
/// The tier of that name, or NULL.
TRIT_API const trit_tier* trit_tier_by_name(const char* name);

/// Runs a tier against the scalar reference on random and extreme inputs (about 1 ms).
///
/// @param message  on a mismatch, one sentence that names kernel and shape (may be NULL)
/// @return 1 if every integer and every scale is equal, bit for bit; else 0
TRIT_API int trit_selftest(const trit_tier* tier, char* message, size_t message_bytes);

/// The tier to use: TRIT_TIER if that is set, else the best supported one that passes its self-test.
///
/// Chosen once per process. A tier that fails its self-test is reported on stderr and skipped. A TRIT_TIER
/// that does not exist, that this CPU lacks, or that fails, ends the process with exit code 2 and one
/// sentence.
TRIT_API const trit_tier* trit_tier_chosen(void);

#ifdef __cplusplus
}
#endif

#endif  // TRIT_H
