// SPDX-License-Identifier: MIT
/// The buffer type whose tensors are ternary weights as panels, packed while the model loads.
#ifndef TRIT_GGML_REPACK_H
#define TRIT_GGML_REPACK_H

#include "ggml-backend.h"
#include "ggml.h"
#include "matrix/encodings.h"
#include "matrix/packed_matrix.h"

/// Ours; patch 0002 registers it.
ggml_backend_buffer_type_t trit_buffer_type(void);

namespace trit {

/// How a ggml type holds ternary weights; nullptr for other types.
const Encoding* encoding_of(ggml_type type);

/// Whether ggml has no code for a type: tensors of it are ours in every buffer.
bool only_ours(ggml_type type);

/// The scale of such a tensor, or of what it is a view of: it stands behind the codes of the whole.
float scale_of(const ggml_tensor* w);

Shape shape_of(const ggml_tensor* w);

/// Whether a tensor, or what it is a view of, is in our buffer. A view has a buffer of its own only once the
/// graph is allocated.
bool is_packed(const ggml_tensor* w);

/// Whether `w` (of any buffer) can be packed for the chosen tier.
bool can_pack(const ggml_tensor* w);

/// Buffer functions; `type` is the buffer type itself.
ggml_backend_buffer_t alloc_packed_buffer(ggml_backend_buffer_type_t type, size_t size);
size_t packed_size(ggml_backend_buffer_type_t type, const ggml_tensor* w);

}  // namespace trit

#endif  // TRIT_GGML_REPACK_H
