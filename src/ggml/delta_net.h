// SPDX-License-Identifier: MIT
/// Linear attention's recurrence (gated delta rule), and the copy of its states: what hybrid models such as
/// qwen35 have in most of their layers.
#ifndef TRIT_GGML_DELTA_NET_H
#define TRIT_GGML_DELTA_NET_H

#include <cstddef>

#include "ggml-cpu-impl.h"
#include "ggml.h"

namespace trit {

/// Whether an op is such a recurrence with states of 128 x 128, one gate for each head, and no state kept but
/// the last. Upstream goes through a state four times for every token; here a row of it stays in registers
/// while some tokens go by. Results do not depend on the number of threads, nor of tokens at once.
bool can_scan(const ggml_tensor* op);
size_t scan_work_bytes(const ggml_tensor* op, int threads);
void scan(const ggml_compute_params* params, ggml_tensor* dst);

/// Whether an op copies a few long rows, as states out of their cache: upstream gives each row to one thread.
bool can_copy_rows(const ggml_tensor* op);
size_t copy_rows_work_bytes(const ggml_tensor* op, int threads);
void copy_rows(const ggml_compute_params* params, ggml_tensor* dst);

}  // namespace trit

#endif  // TRIT_GGML_DELTA_NET_H
