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

/// Row (i1, i2, i3) of a tensor.
template <typename T>
T* row_at(const ggml_tensor* t, int64_t i1, int64_t i2 = 0, int64_t i3 = 0) {
    return reinterpret_cast<T*>(static_cast<char*>(t->data) + static_cast<size_t>(i1) * t->nb[1] +
                                static_cast<size_t>(i2) * t->nb[2] + static_cast<size_t>(i3) * t->nb[3]);
}

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
