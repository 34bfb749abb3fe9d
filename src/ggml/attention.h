// SPDX-License-Identifier: MIT
/// Attention over a cache in half precision.
#ifndef TRIT_GGML_ATTENTION_H
#define TRIT_GGML_ATTENTION_H

#include "ggml-cpu-impl.h"
#include "ggml.h"

namespace trit {

/// Whether `op` is such an attention, without biases, caps and sinks. TRIT_ATTENTION=off: never.
bool can_attend(const ggml_tensor* op);

size_t attend_work_bytes(const ggml_tensor* op, int threads);
void attend(const ggml_compute_params* params, ggml_tensor* dst);

}  // namespace trit

#endif  // TRIT_GGML_ATTENTION_H
