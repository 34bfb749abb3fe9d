// SPDX-License-Identifier: MIT
/// The engine hook: what ggml calls us for.
///
/// ggml asks every registered extra buffer type about every op, whatever buffer the op's weights are in. Ours
/// takes two kinds of weights:
/// - packed: the loader puts tensors that supports_op accepts into a buffer of our type (--repack, the
///   default), where they become panels;
/// - in place: tensors of i2_s, tl1 and tl2 in any other buffer stay as they are in the mapped file
///   (--no-repack, token embeddings, views), and get_tensor_traits claims the ops that read them.
/// Besides, large matrices of stock types are streamed (head.h): a model's head is up to 40 % of the
/// bytes that a token reads; attention over a cache in half precision is ours (attention.h), and the
/// recurrence of linear attention (delta_net.h). Patch 0002 registers the type.
#include <cstdint>
#include <cstring>
#include <mutex>
#include <string>

#include "ggml-backend-impl.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "ggml.h"
#include "ggml/attention.h"
#include "ggml/delta_net.h"
#include "ggml/head.h"
#include "ggml/mul_mat.h"
#include "ggml/repack.h"
#include "kernels/packing_names.h"
#include "matrix/tuning.h"
#include "matrix/tuning_file.h"
#include "traits.h"
#include "trit.h"

namespace {

/// Rows of a tensor in place as floats, for a ternary token embedding.
void get_rows(const ggml_compute_params* params, ggml_tensor* dst) {
    const ggml_tensor* w = dst->src[0];
    const ggml_tensor* ids = dst->src[1];
    const trit::Encoding& encoding = *trit::encoding_of(w->type);
    constexpr int64_t kMaxBlock = 256;
    GGML_ASSERT(encoding.block <= kMaxBlock);
    uint8_t codes[kMaxBlock];
    const float scale = trit::scale_of(w);
    const int64_t n_rows = ggml_nelements(ids);
    for (int64_t i = params->ith; i < n_rows; i += params->nth) {
        const int64_t i0 = i % ids->ne[0];
        const int64_t i1 = i / ids->ne[0] % ids->ne[1];
        const int64_t i2 = i / ids->ne[0] / ids->ne[1];
        int32_t id = 0;
        std::memcpy(&id,
                    static_cast<const char*>(ids->data) + i0 * ids->nb[0] + i1 * ids->nb[1] + i2 * ids->nb[2],
                    sizeof(id));
        GGML_ASSERT(id >= 0 && id < w->ne[1]);
        const auto* row = trit::row_at<uint8_t>(w, id, i1, i2);
        float* out = trit::row_at<float>(dst, i0, i1, i2);
        for (int64_t first = 0; first < w->ne[0]; first += encoding.block, row += encoding.block_bytes) {
            encoding.unpack(encoding.block, row, codes);
            for (int64_t l = 0; l < encoding.block; ++l) {
                out[first + l] = static_cast<float>(codes[l] - 1) * scale;
            }
        }
    }
}

/// What is used for weights like these.
void say(const ggml_tensor* w, bool packed, int threads) {
    const trit_tier& tier = *trit_tier_chosen();
    std::string how = "in place";
    if (packed && w->view_src != nullptr) {
        return;  // no header is there; the product is refused
    }
    if (packed) {
        const trit::PackedMatrix matrix(w->data);
        const trit_packing packing = matrix.packing();
        how = std::string("packed at load as ") + trit::packing_name(packing);
        if (matrix.group() != 0) {
            how += " with a scale for each " + std::to_string(matrix.group()) + " inputs";
        }
        const trit_lookup_kernel* few = trit_lookup_chosen(packing);
        const trit_lookup_kernel* many = trit::lookup_choice(w->ne[1], w->ne[0], threads).kernel;
        if (packing >= TRIT_TIER_PACKINGS && few != nullptr) {
            how += std::string("; few tokens by ") + few->name;
        }
        if (matrix.has_tables() && many != nullptr) {
            how += std::string("; many tokens by ") + many->name;
        }
    }
    GGML_LOG_INFO("trit: ternary kernels of tier %s, self-test passed; weights %s\n", tier.name, how.c_str());
}

class TernaryTraits : public ggml::cpu::tensor_traits {
    bool work_size(int n_threads, const ggml_tensor* op, size_t& size) override {
        const bool packed = trit::is_packed(op->src[0]);
        size = 0;
        if (op->op == GGML_OP_MUL_MAT) {
            size = trit::mul_mat_work_bytes(op, packed, n_threads);
        } else if (op->op == GGML_OP_MUL_MAT_ID) {
            size = trit::mul_mat_id_work_bytes(op, packed, n_threads);
        }
        // Said here, where the first graph is planned: while a model loads, the tools turn their log down.
        std::call_once(said_, [&] { say(op->src[0], packed, n_threads); });
        return true;
    }

    bool compute_forward(ggml_compute_params* params, ggml_tensor* op) override {
        const ggml_tensor* w = op->src[0];
        const bool packed = trit::is_packed(w);
        if (packed && w->view_src != nullptr) {
            // The panels of a packed tensor have no rows that a view could point at.
            GGML_ABORT("trit: %s of %s, a view of the packed tensor %s, is not supported; use --no-repack",
                       ggml_op_name(op->op), w->name, w->view_src->name);
        }
        switch (op->op) {
            case GGML_OP_MUL_MAT:
                trit::mul_mat(params, op, packed);
                return true;
            case GGML_OP_MUL_MAT_ID:
                trit::mul_mat_id(params, op, packed);
                return true;
            case GGML_OP_GET_ROWS:
                if (!packed) {
                    get_rows(params, op);
                    return true;
                }
                break;
            default:
                break;
        }
        GGML_ABORT("trit: %s of the %s tensor %s is not supported; convert the model to f16",
                   ggml_op_name(op->op), ggml_type_name(op->src[0]->type), op->src[0]->name);
    }

    std::once_flag said_;
};

/// Of an op that is computed by a function of its own.
template <size_t (*kWorkBytes)(const ggml_tensor*, int),
          void (*kCompute)(const ggml_compute_params*, ggml_tensor*)>
class Traits : public ggml::cpu::tensor_traits {
    bool work_size(int n_threads, const ggml_tensor* op, size_t& size) override {
        size = kWorkBytes(op, n_threads);
        return true;
    }

    bool compute_forward(ggml_compute_params* params, ggml_tensor* op) override {
        kCompute(params, op);
        return true;
    }
};

/// Ops that only pass a tensor on and never look at its values.
bool moves_no_data(ggml_op op) {
    return op == GGML_OP_NONE || op == GGML_OP_RESHAPE || op == GGML_OP_VIEW || op == GGML_OP_PERMUTE ||
           op == GGML_OP_TRANSPOSE;
}

class ExtraBufferType : public ggml::cpu::extra_buffer_type {
    /// Asked for ops on tensors of our buffer, and by the loader (with an empty buffer) where to put weights.
    bool supports_op(ggml_backend_dev_t, const ggml_tensor* op) override {
        const ggml_tensor* w = op->src[0];
        const ggml_tensor* x = op->src[1];
        if ((op->op != GGML_OP_MUL_MAT && op->op != GGML_OP_MUL_MAT_ID) || !trit::is_packed(w) ||
            !trit::can_pack(w)) {
            return false;
        }
        return x->type == GGML_TYPE_F32 &&
               (x->buffer == nullptr || ggml_backend_buft_is_host(x->buffer->buft));
    }

    ggml::cpu::tensor_traits* get_tensor_traits(const ggml_tensor* op) override {
        const ggml_tensor* w = op->src[0];
        if (w == nullptr || moves_no_data(op->op)) {
            return nullptr;
        }
        if (trit::is_ours(w)) {
            return &ternary_;
        }
        if (trit::can_attend(op)) {
            return &attention_;
        }
        if (trit::can_scan(op)) {
            return &scan_;
        }
        if (trit::can_copy_rows(op)) {
            return &copy_rows_;
        }
        return trit::can_stream(op) ? &head_ : nullptr;
    }

    TernaryTraits ternary_;
    Traits<trit::stream_work_bytes, trit::stream> head_;
    Traits<trit::attend_work_bytes, trit::attend> attention_;
    Traits<trit::scan_work_bytes, trit::scan> scan_;
    Traits<trit::copy_rows_work_bytes, trit::copy_rows> copy_rows_;
};

const char* buffer_type_name(ggml_backend_buffer_type_t) { return "trit"; }

size_t alignment(ggml_backend_buffer_type_t) { return TRIT_PANEL_ALIGN; }

}  // namespace

ggml_backend_buffer_type_t trit_buffer_type(void) {
    static const bool tuned = (trit::load_tuning(), true);
    (void)tuned;
    static ExtraBufferType extra;
    static ggml_backend_buffer_type type = {
        {buffer_type_name, trit::alloc_packed_buffer, alignment, nullptr, trit::packed_size, nullptr},
        ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0),
        &extra};
    return &type;
}
