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

/// i2_s: weights per block, and bytes per block. The bytes are described in docs/formats.md.
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

/// Packings of a panel: 64 rows of codes in the order in which the kernels read them. docs/formats.md has
/// the bytes; src/kernels/panel.cpp writes them.
typedef enum trit_packing {
    TRIT_PACKING_2_BITS = 0,   ///< four codes in a byte, any code 0..3
    TRIT_PACKING_5_TRITS = 1,  ///< five codes in a byte (1.6 bits), codes 0..2 only
    TRIT_PACKING_1_BIT = 2,    ///< a bit each, codes 0 and 2 only: weights that are never 0, and nothing else
    TRIT_PACKING_TL1 = 3,      ///< a 4-bit table index for 2 inputs, codes 0..2 only; look-up kernels read it
    TRIT_PACKING_TL2 = 4,      ///< a 4-bit index and a sign for 3 inputs (1.67 bits), codes 0..2 only; as TL1
    TRIT_PACKING_COUNT = 5,
    TRIT_TIER_PACKINGS = 3,  ///< the first ones, for which tiers have panel kernels
} trit_packing;

enum {
    TRIT_PANEL_ROWS = 64,
    /// Every panel starts at a multiple of this.
    TRIT_PANEL_ALIGN = 64,
    /// A kernel may read this many bytes behind a token's k activations; their values do not matter.
    TRIT_PANEL_OVERREAD = 32,
};
/// Widest matrix of the panel kernels: 192 * 128 * 4 * k / 16 stays below 2^31.
#define TRIT_PANEL_MAX_K ((int64_t)1 << 18)

/// Integer products of one panel and int8 activations: c[j][i] = sum over l of u[i][l] * q[j][l].
///
/// Exact like trit_i2_s_fn: no intermediate saturates or wraps, one token alone gives the same bits as inside
/// a batch.
///
/// @param k            inputs, a multiple of 32, at most TRIT_PANEL_MAX_K
/// @param panel        trit_panel_bytes(packing, k) bytes, aligned to TRIT_PANEL_ALIGN
/// @param q            int8 [m, k]; TRIT_PANEL_OVERREAD bytes behind each row may be read
/// @param q_row_bytes  distance of two tokens in q, >= k
/// @param m            tokens, >= 0
/// @param c            int32 [m, TRIT_PANEL_ROWS], written
typedef void (*trit_panel_fn)(int64_t k, const uint8_t* panel, const int8_t* q, size_t q_row_bytes, int m,
                              int32_t* c);

/// Turns one token's sums into results: out[i] = float(c[i] - act_sum) / act_scale * w_scale[i * w_step].
///
/// Float32, in this order, each step rounded: what training computes, for |c - act_sum| < 2^24.
///
/// @param n       rows, 1 to TRIT_PANEL_ROWS
/// @param c       int32 [TRIT_PANEL_ROWS], readable to its end
/// @param w_step  0: one weight scale for all rows; 1: float [n], one for each
/// @param out     float [n], written; no alignment needed
typedef void (*trit_finish_fn)(int n, const int32_t* c, int32_t act_sum, float act_scale,
                               const float* w_scale, int w_step, float* out);

/// Adds one group's sums of one token: acc[i] += float(c[i] - act_sum) * act_step * float(w_scale[i]).
///
/// Float32, in this order, each step rounded, no fused multiply-add.
///
/// @param c         int32 [TRIT_PANEL_ROWS]
/// @param act_step  what one unit of the group's int8 activations is worth
/// @param w_scale   IEEE half precision [TRIT_PANEL_ROWS]
/// @param acc       float [TRIT_PANEL_ROWS], updated
typedef void (*trit_accumulate_fn)(const int32_t* c, int32_t act_sum, float act_step, const uint16_t* w_scale,
                                   float* acc);

/// llama.cpp's q6_K (weights) and q8_K (activations) blocks of 256; the bytes are described in its
/// ggml-common.h.
enum { TRIT_K_BLOCK = 256, TRIT_Q6_K_BYTES = 210, TRIT_Q8_K_BYTES = 292, TRIT_Q6_K_TOKENS = 7 };

/// Products of q6_K rows and q8_K tokens: out[j][i] = row i times token j.
///
/// The same bits as ggml_vec_dot_q6_K_q8_K of llama.cpp gives with AVX2 and FMA: each block's integers are
/// summed in 8 lanes (lane l: codes 0..63 of inputs 4 l ... 4 l + 3 of each 32, and the 32 that codes are too
/// large of inputs 32 l ... 32 l + 31), a lane's float sum grows by one fused multiply-add per block, and the
/// lanes are added as ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)). On 64-bit ARM the bits are those that it
/// gives with NEON: all integers of a block are one sum.
///
/// @param k            inputs, a multiple of TRIT_K_BLOCK
/// @param w            q6_K rows, w_row_bytes apart
/// @param n            rows, >= 0
/// @param tokens       q8_K tokens, token_bytes apart
/// @param m            tokens, 1 to TRIT_Q6_K_TOKENS
/// @param out          m rows of float [n], written
typedef void (*trit_q6_k_fn)(int64_t k, const uint8_t* w, size_t w_row_bytes, int64_t n,
                             const uint8_t* tokens, size_t token_bytes, int m, float* const* out);

/// Measuring loops of the roofline tool.
///
/// mac_loop: `rounds` rounds of independent int8 multiply-accumulates in registers; returns how many were
/// done. read_loop: reads `bytes` (a multiple of 4096) at `data` in one linear stream with prefetch `ahead`
/// bytes before the loads (0: none); returns something that depends on every byte.
typedef int64_t (*trit_mac_loop_fn)(int64_t rounds);
typedef uint64_t (*trit_read_loop_fn)(const uint8_t* data, size_t bytes, size_t ahead);

/// Products of several panels and some tokens, by tables of the tokens' partial sums ("look-up"):
/// c[j * c_stride + r] = sum over l of (u[r][l] - 1) * q[j][l].
///
/// Exact like trit_panel_fn.
///
/// @param k            inputs, a multiple of 32, at most TRIT_PANEL_MAX_K
/// @param panels       panels of the kernel's packing with codes 0..2, aligned to TRIT_PANEL_ALIGN
/// @param panel_bytes  distance of two panels
/// @param count        panels, 1 to the kernel's `panels`
/// @param q            int8 [m, k], q_row_bytes apart
/// @param m            tokens, 1 to the kernel's `tokens`
/// @param work         the kernel's `work_bytes` bytes, aligned to 64; nothing in it is kept
/// @param c            int32 [m, 64 count], written
/// @param c_stride     distance of two tokens in c, in elements, >= 64 count
typedef void (*trit_lookup_fn)(int64_t k, const uint8_t* panels, size_t panel_bytes, int count,
                               const int8_t* q, size_t q_row_bytes, int m, void* work, int32_t* c,
                               size_t c_stride);

/// Writes a panel of table indices as one of 2 bits, for kernels of many tokens.
///
/// @param k      inputs, a multiple of 32
/// @param panel  of the kernel's packing, aligned to TRIT_PANEL_ALIGN
/// @param out    trit_panel_bytes(TRIT_PACKING_2_BITS, k) bytes, aligned to TRIT_PANEL_ALIGN
typedef void (*trit_unpack_fn)(int64_t k, const uint8_t* panel, uint8_t* out);

/// A look-up kernel, made by trit/tune/codegen; its file defines `trit_<name>`.
typedef struct trit_lookup_kernel {
    const char* name;  ///< file stem, value of TRIT_LOOKUP
    const char* tier;  ///< the tier that it is made for ("avx512": none); it works beside others too
    trit_packing packing;
    int (*supported)(void);
    int tokens;        ///< most tokens of a call
    int least_tokens;  ///< fewer are faster with the tier's own kernels
    int panels;        ///< most panels of a call
    size_t work_bytes;
    trit_lookup_fn multiply;
    trit_unpack_fn to_2_bits;  ///< NULL: its panels are of 2 bits, or trit_panel_to_2_bits does it
} trit_lookup_kernel;

/// One instruction set's kernels. src/kernels/tiers/<name>.cpp defines `trit_tier_<name>`.
typedef struct trit_tier {
    const char* name;      ///< file stem, value of TRIT_TIER
    const char* features;  ///< every CPU feature that the tier's code needs
    int rank;              ///< the supported tier with the highest rank is tried first
    int (*supported)(void);
    trit_quantize_fn quantize;
    trit_i2_s_fn i2_s;
    trit_panel_fn panel[TRIT_TIER_PACKINGS];  ///< NULL: no kernel for this packing
    trit_finish_fn finish;
    trit_accumulate_fn accumulate;
    trit_mac_loop_fn mac_loop;
    trit_read_loop_fn read_loop;
    trit_q6_k_fn q6_k;  ///< NULL: the engine's own dot product is as good
} trit_tier;

/// Bytes of one panel of 64 rows: a multiple of TRIT_PANEL_ALIGN.
TRIT_API size_t trit_panel_bytes(trit_packing packing, int64_t k);
/// Writes one panel.
///
/// @param rows       1 to TRIT_PANEL_ROWS; rows that are missing are filled up
/// @param codes      uint8 [rows, k], each 0..3
/// @param row_bytes  distance of two rows in codes
/// @return 1; 0 if the packing cannot hold one of the codes (code 3 in any but 2 bits, code 1 in 1 bit)
TRIT_API int trit_panel_pack(trit_packing packing, int64_t k, int rows, const uint8_t* codes,
                             size_t row_bytes, uint8_t* panel);

/// Writes a panel of TL1 or TL2 as one of 2 bits: the reference of the look-up kernels' to_2_bits.
///
/// @param panel  of that packing
/// @param out    trit_panel_bytes(TRIT_PACKING_2_BITS, k) bytes, aligned to TRIT_PANEL_ALIGN
TRIT_API void trit_panel_to_2_bits(trit_packing packing, int64_t k, const uint8_t* panel, uint8_t* out);

/// Number of tiers compiled in, those that this CPU cannot run included.
TRIT_API int trit_tier_count(void);
/// The i-th tier, ordered by falling rank; NULL if i is out of range.
TRIT_API const trit_tier* trit_tier_at(int i);
/// The tier of that name, or NULL.
TRIT_API const trit_tier* trit_tier_by_name(const char* name);

/// Runs a tier against the scalar reference on random and extreme inputs (about 20 ms).
///
/// It survives an instruction that this machine does not execute (not in builds of MinGW).
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

/// Number of look-up kernels compiled in or added, those that this CPU cannot run included.
TRIT_API int trit_lookup_count(void);
/// The i-th look-up kernel, presets first; NULL if i is out of range.
TRIT_API const trit_lookup_kernel* trit_lookup_at(int i);
/// Adds a look-up kernel behind all others, for as long as the process lives; not while another thread asks
/// for kernels. One whose name is taken is left out.
///
/// @return 1 if it was added
TRIT_API int trit_lookup_add(const trit_lookup_kernel* kernel);
/// Makes trit_lookup_chosen answer with this kernel, which works here, for its packing; not where TRIT_LOOKUP
/// is set. To be called before any matrix is packed.
TRIT_API void trit_lookup_prefer(const trit_lookup_kernel* kernel);
/// The look-up kernel of that name, or NULL.
TRIT_API const trit_lookup_kernel* trit_lookup_by_name(const char* name);
/// Runs a look-up kernel against the scalar panel kernel, as trit_selftest does with a tier.
TRIT_API int trit_lookup_selftest(const trit_lookup_kernel* kernel, char* message, size_t message_bytes);
/// The look-up kernel to use for panels of a packing beside the chosen tier, or NULL for none: the one that
/// TRIT_LOOKUP names ("off": none), if it reads that packing; else the first that is made for the tier and
/// passes its self-test. TL1 and TL2, which nothing else reads, take the kernel of any tier: of those that
/// this CPU can run one made for the TRIT_TIER that is asked for, else for the tier of the highest rank.
///
/// Chosen once per process, with the rules of trit_tier_chosen.
TRIT_API const trit_lookup_kernel* trit_lookup_chosen(trit_packing packing);
/// The packing that TRIT_PACKING asks for ("2_bits", "5_trits", "tl1", "tl2"), or TRIT_PACKING_COUNT if it is
/// not set.
///
/// Read once per process. A name that does not exist, or a packing that neither the chosen tier nor a look-up
/// kernel reads, ends the process with exit code 2 and one sentence.
TRIT_API trit_packing trit_packing_asked(void);

#ifdef __cplusplus
}
#endif

#endif  // TRIT_H
