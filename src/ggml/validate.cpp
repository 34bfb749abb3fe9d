// SPDX-License-Identifier: MIT
/// --check-tensors for the types that ggml has no code for. Part of ggml-base, where ggml's own checks are;
/// patch 0001 calls it.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>

#include "ggml.h"
#include "matrix/encodings.h"

extern "C" bool trit_validate(ggml_type type, const void* data, size_t bytes);

/// data: a whole tensor, its tail included.
bool trit_validate(ggml_type type, const void* data, size_t bytes) {
    const char* name = ggml_type_name(type);
    const trit::Encoding& encoding = *trit::find_encoding(name);
    const auto* codes_end = static_cast<const uint8_t*>(data) + bytes - encoding.tail_bytes;
    const auto weights =
        static_cast<int64_t>((bytes - encoding.tail_bytes) / encoding.block_bytes) * encoding.block;
    const float scale = encoding.tensor_scale(static_cast<const uint8_t*>(data), weights);
    bool valid = std::isfinite(scale) && scale >= 0.0f;
    uint8_t codes[256];
    for (const auto* block = static_cast<const uint8_t*>(data); valid && block < codes_end;
         block += encoding.block_bytes) {
        encoding.unpack(encoding.block, block, codes);
        valid = *std::max_element(codes, codes + encoding.block) < 3;
    }
    if (!valid) {
        std::fprintf(stderr,
                     "%s: a tensor of type %s holds what stands for no weight, or the scale %f; convert the "
                     "model again\n",
                     __func__, name, static_cast<double>(scale));
    }
    return valid;
}
