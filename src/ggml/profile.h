// SPDX-License-Identifier: MIT
/// Where a graph's time goes: clocks between the nodes, read only if TRIT_PROFILE names a file.
///
/// Patch 0008 calls the functions at the start of a graph and of each node, and around each barrier; our
/// products say when they turn from one thing to another. Each thread counts for itself. When the process
/// ends, the sums go to the file as JSON (`write` in profile.cpp says what is in it). Plain C: ggml's
/// own file includes it.
#ifndef TRIT_GGML_PROFILE_H
#define TRIT_GGML_PROFILE_H

#include <stdbool.h>

struct ggml_cgraph;
struct ggml_tensor;

#ifdef __cplusplus
extern "C" {
#endif

/// What a thread is doing.
enum trit_part {
    TRIT_PART_TERNARY_ONE,   ///< product of ternary weights with one token
    TRIT_PART_TERNARY_FEW,   ///< with 2 to 16 tokens
    TRIT_PART_TERNARY_MANY,  ///< with more
    TRIT_PART_QUANTIZE,      ///< rounding activations to int8
    TRIT_PART_HEAD,          ///< product of the output matrix
    TRIT_PART_OTHER_MATRIX,  ///< product of other weights
    TRIT_PART_ATTENTION,  ///< rotation, cache, scores, softmax, sums of values; linear attention's recurrence
    TRIT_PART_ELEMENTWISE,  ///< norms, activation functions, residuals
    TRIT_PART_ROWS,         ///< embedding, choice of rows
    TRIT_PART_OTHER,
    TRIT_PART_BARRIER,  ///< waiting for other threads
    TRIT_PARTS
};

/// Whether to count. With false, all that is done is to read it.
extern bool trit_profiling;

void trit_profile_graph(const struct ggml_cgraph* graph, int thread, int threads);
void trit_profile_graph_end(void);
void trit_profile_node(const struct ggml_tensor* node);
/// From here on the thread rounds the activations of a product; then, computes the product itself.
void trit_profile_quantize(void);
void trit_profile_product(const struct ggml_tensor* node);
void trit_profile_barrier(void);
void trit_profile_barrier_end(void);

#ifdef __cplusplus
}
#endif

#define TRIT_PROFILE(call)    \
    do {                      \
        if (trit_profiling) { \
            call;             \
        }                     \
    } while (0)

#endif  // TRIT_GGML_PROFILE_H
