// SPDX-License-Identifier: MIT
/// Which nodes of a graph need no barrier between them. Patch 0020 asks before each one. Plain C: ggml's own
/// file includes it.
#ifndef TRIT_GGML_ORDER_H
#define TRIT_GGML_ORDER_H

#include <stdbool.h>

struct ggml_cgraph;

#ifdef __cplusplus
extern "C" {
#endif

/// Whether a thread may begin with node `next` of the graph while others are still at nodes `first` to
/// next - 1, between which there was no barrier either; all of `threads` get the same answer.
bool trit_goes_on(const struct ggml_cgraph* graph, int first, int next, int threads);

#ifdef __cplusplus
}
#endif

#endif  // TRIT_GGML_ORDER_H
