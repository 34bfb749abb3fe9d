// SPDX-License-Identifier: MIT
/// Large matrices of stock types (a model's head) streamed through upstream's own dot products.
#ifndef TRIT_GGML_HEAD_H
#define TRIT_GGML_HEAD_H

#include "ggml-cpu-impl.h"
#include "ggml.h"

namespace trit {

/// Whether `op` is a product that upstream would compute by the same dot products, row after row.
bool can_stream(const ggml_tensor* op);

size_t stream_work_bytes(const ggml_tensor* op, int threads);
void stream(const ggml_compute_params* params, ggml_tensor* dst);

}  // namespace trit

#endif  // TRIT_GGML_HEAD_H
