// SPDX-License-Identifier: MIT
#include "ggml/repack.h"

#include <array>
#include <cstdlib>
#include <thread>

#include "ggml-backend-impl.h"
#include "ggml-impl.h"
#include "matrix/big_memory.h"

namespace trit {
namespace {

void free_buffer(ggml_backend_buffer_t buffer) { free_big(buffer->context, buffer->size); }

void* base(ggml_backend_buffer_t buffer) { return buffer->context; }

/// Packs the tensor; the loader hands it over whole.
void set_tensor(ggml_backend_buffer_t, ggml_tensor* w, const void* data, size_t offset, size_t size) {
    GGML_ASSERT(can_pack(w) && offset == 0 && size == ggml_nbytes(w));
    const unsigned cores = std::thread::hardware_concurrency();
    const char* fault = PackedMatrix::pack(*trit_tier_chosen(), *encoding_of(w->type), shape_of(w),
                                           static_cast<const uint8_t*>(data),
                                           cores != 0 ? static_cast<int>(cores) : 1, w->data);
    if (fault != nullptr) {
        GGML_LOG_ERROR("error: the %s tensor %s %s: the file is damaged; convert or download it again\n",
                       ggml_type_name(w->type), w->name, fault);
        std::exit(2);  // the user's file
    }
    // The scales decide how much of what was planned is used.
    const size_t used = PackedMatrix(w->data).used_bytes(shape_of(w).count);
    forget_unused(static_cast<char*>(w->data) + used, packed_size(nullptr, w) - used);
    forget_file_pages(data, size);
}

void clear(ggml_backend_buffer_t, uint8_t) {}  // packed bytes have no meaning as single values

constexpr ggml_backend_buffer_i kBuffer = {
    free_buffer, base, nullptr, nullptr, set_tensor, nullptr, nullptr, nullptr, nullptr, clear, nullptr,
};

}  // namespace

const Encoding* encoding_of(ggml_type type) {
    static const auto kByType = [] {
        std::array<const Encoding*, GGML_TYPE_COUNT> table{};
        for (size_t i = 0; i < table.size(); ++i) {
            const char* name = ggml_type_name(static_cast<ggml_type>(i));
            table[i] = name != nullptr ? find_encoding(name) : nullptr;
        }
        return table;
    }();
    return kByType[type];
}

bool only_ours(ggml_type type) {
    const Encoding* encoding = encoding_of(type);
    return encoding != nullptr && encoding->tail_bytes != 0;
}

float scale_of(const ggml_tensor* w) {
    const ggml_tensor* base = w->view_src != nullptr ? w->view_src : w;
    return encoding_of(base->type)
        ->tensor_scale(static_cast<const uint8_t*>(base->data), ggml_nelements(base));
}

Shape shape_of(const ggml_tensor* w) { return {w->ne[0], w->ne[1], w->ne[2] * w->ne[3]}; }

bool can_pack(const ggml_tensor* w) {
    const Encoding* encoding = encoding_of(w->type);
    return encoding != nullptr && w->view_src == nullptr && ggml_is_contiguous(w) &&
           PackedMatrix::possible(*trit_tier_chosen(), *encoding, shape_of(w));
}

ggml_backend_buffer_t alloc_packed_buffer(ggml_backend_buffer_type_t type, size_t size) {
    void* memory = alloc_big(size);
    if (memory == nullptr) {
        GGML_LOG_ERROR("error: no memory for %.1f MB of packed weights; --no-repack needs none\n",
                       static_cast<double>(size) / 1e6);
        return nullptr;
    }
    return ggml_backend_buffer_init(type, kBuffer, memory, size);
}

bool is_packed(const ggml_tensor* w) {
    const ggml_backend_buffer_t buffer = (w->view_src != nullptr ? w->view_src : w)->buffer;
    return buffer != nullptr && buffer->buft == trit_buffer_type();
}

size_t packed_size(ggml_backend_buffer_type_t, const ggml_tensor* w) {
    return can_pack(w) ? PackedMatrix::bytes(*trit_tier_chosen(), *encoding_of(w->type), shape_of(w))
                       : ggml_nbytes(w);
}

}  // namespace trit
