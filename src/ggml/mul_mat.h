// SPDX-License-Identifier: MIT
/// Matrix products of ternary weights, in place (i2_s, tl1, tl2) or packed, as ggml's threads call them.
#ifndef TRIT_GGML_MUL_MAT_H
#define TRIT_GGML_MUL_MAT_H

#include "ggml-cpu-impl.h"
#include "ggml.h"
#include "matrix/matmul.h"

namespace trit {

/// The plan of w times m tokens. packed: w is in our buffer; else it is a tensor as in the file.
Matmul matmul_of(const ggml_tensor* w, bool packed, int64_t m, int threads);

/// Whether a product with this weight is computed here.
bool is_ours(const ggml_tensor* w);
/// Whether two products of one token leave each thread the same part of the work memory.
bool same_work_memory(const ggml_tensor* a, const ggml_tensor* b, int threads);

size_t mul_mat_work_bytes(const ggml_tensor* op, bool packed, int threads);
void mul_mat(const ggml_compute_params* params, ggml_tensor* dst, bool packed);

size_t mul_mat_id_work_bytes(const ggml_tensor* op, bool packed, int threads);
void mul_mat_id(const ggml_compute_params* params, ggml_tensor* dst, bool packed);

}  // namespace trit

#endif  // TRIT_GGML_MUL_MAT_H
