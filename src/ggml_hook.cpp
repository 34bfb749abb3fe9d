// SPDX-License-Identifier: MIT
/// The engine hook: the only file that knows ggml.
///
/// ggml asks every registered extra buffer type about every op, whatever buffer the op's weights are in. Ours
/// never holds a tensor (supports_op says no), so weights stay memory-mapped where they are; but
/// get_tensor_traits claims the ops that read I2_S tensors: MUL_MAT (our kernels) and GET_ROWS. Patch 0002
/// registers it.
///
/// Names are translated here, once: ggml's ne00 is k, src0's ne01 is n, src1's ne11 is m.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <mutex>

#include "ggml-backend-impl.h"
#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "ggml.h"
#include "traits.h"
#include "trit.h"

namespace {

constexpr size_t kAlign = 64;
/// Activations of this many bytes stay in a core's second-level cache while the weights stream by.
constexpr int64_t kTokenBlockBytes = 256 * 1024;
/// Results of one (row block x token block) step, kept on the stack between sums and scaling.
constexpr int64_t kRowBlock = 64;
constexpr int64_t kMaxTokenBlock = 96;

size_t align_up(size_t size) { return (size + kAlign - 1) / kAlign * kAlign; }

/// Scale of an I2_S tensor: the float behind its codes (behind those of the whole tensor, for a view of one).
float weight_scale(const ggml_tensor* w) {
    const ggml_tensor* base = w->view_src != nullptr ? w->view_src : w;
    float scale = 0.0f;
    std::memcpy(&scale, static_cast<const char*>(base->data) + ggml_nelements(base) / 4, sizeof(scale));
    return scale;
}

/// Quantised activations: `rows` of them in the threads' shared work buffer.
struct Activations {
    int8_t* q;
    float* scale;
    int32_t* sum;

    static size_t bytes(int64_t rows, int64_t k) {
        return kAlign + static_cast<size_t>(rows) *
                            (align_up(static_cast<size_t>(k)) + sizeof(float) + sizeof(int32_t));
    }

    Activations(void* work, int64_t rows, int64_t k) {
        const size_t start = align_up(reinterpret_cast<size_t>(work));
        q = reinterpret_cast<int8_t*>(start);
        scale = reinterpret_cast<float*>(q + static_cast<size_t>(rows) * align_up(static_cast<size_t>(k)));
        sum = reinterpret_cast<int32_t*>(scale + rows);
    }
};

/// One token is quantised by every thread for itself: that is cheaper than a barrier. More tokens are shared
/// out.
bool each_for_itself(int64_t tokens) { return tokens == 1; }

const float* source_row(const ggml_tensor* src1, int64_t row) {
    const int64_t i1 = row % src1->ne[1];
    const int64_t i2 = row / src1->ne[1] % src1->ne[2];
    const int64_t i3 = row / src1->ne[1] / src1->ne[2];
    return reinterpret_cast<const float*>(static_cast<const char*>(src1->data) + i1 * src1->nb[1] +
                                          i2 * src1->nb[2] + i3 * src1->nb[3]);
}

/// Rows [first_row, last_row) of one matrix times the `m` tokens that start at activation row `first_token`.
void multiply(const trit_tier& tier, const ggml_tensor* w, const char* w_data, float w_scale,
              const Activations& act, int64_t first_token, int64_t m, int64_t first_row, int64_t last_row,
              char* dst, size_t dst_row_bytes) {
    const int64_t k = w->ne[0];
    const size_t q_row_bytes = align_up(static_cast<size_t>(k));
    const int64_t token_block = std::clamp<int64_t>(kTokenBlockBytes / k / 4 * 4, 4, kMaxTokenBlock);
    alignas(kAlign) int32_t sums[kMaxTokenBlock * kRowBlock];
    for (int64_t t0 = 0; t0 < m; t0 += token_block) {
        const int64_t tokens = std::min(token_block, m - t0);
        const int8_t* q = act.q + static_cast<size_t>(first_token + t0) * q_row_bytes;
        for (int64_t r0 = first_row; r0 < last_row; r0 += kRowBlock) {
            const int64_t rows = std::min(kRowBlock, last_row - r0);
            tier.i2_s(k, reinterpret_cast<const uint8_t*>(w_data + r0 * w->nb[1]), w->nb[1],
                      static_cast<int>(rows), q, q_row_bytes, static_cast<int>(tokens), sums, kRowBlock);
            for (int64_t t = 0; t < tokens; ++t) {
                const int64_t token = first_token + t0 + t;
                const float act_scale = act.scale[token];
                const int32_t act_sum = act.sum[token];
                const int32_t* in = sums + t * kRowBlock;
                float* out = reinterpret_cast<float*>(dst + (t0 + t) * dst_row_bytes) + r0;
                for (int64_t r = 0; r < rows; ++r) {
                    // sum(t * q) = sum((u - 1) * q), exact below 2^24; training's q / s, then its weight
                    // scale.
                    out[r] = static_cast<float>(in[r] - act_sum) / act_scale * w_scale;
                }
            }
        }
    }
}

void mul_mat(const ggml_compute_params* params, ggml_tensor* dst) {
    const ggml_tensor* w = dst->src[0];
    const ggml_tensor* x = dst->src[1];
    GGML_ASSERT(x->type == GGML_TYPE_F32 && dst->type == GGML_TYPE_F32);
    GGML_ASSERT(x->nb[0] == sizeof(float) && dst->nb[0] == sizeof(float));
    const trit_tier& tier = *trit_tier_chosen();
    const int64_t k = w->ne[0];
    const int64_t n = w->ne[1];
    const int64_t m = x->ne[1];
    const int64_t tokens = ggml_nrows(x);
    const int64_t slots = each_for_itself(tokens) ? params->nth : tokens;
    Activations act(params->wdata, slots, k);
    const size_t q_row_bytes = align_up(static_cast<size_t>(k));

    const auto quantize = [&](int64_t from, int64_t slot) {
        tier.quantize(k, source_row(x, from), act.q + static_cast<size_t>(slot) * q_row_bytes,
                      act.scale + slot, act.sum + slot);
    };
    int64_t first_slot = 0;
    if (each_for_itself(tokens)) {
        first_slot = params->ith;
        quantize(0, first_slot);
    } else {
        for (int64_t token = params->ith; token < tokens; token += params->nth) {
            quantize(token, token);
        }
        ggml_barrier(params->threadpool);
    }

    // Contiguous rows per thread, in multiples of the tiers' row tile: each thread reads one linear stream.
    const int64_t share = ((n + params->nth - 1) / params->nth + 3) / 4 * 4;
    const int64_t first_row = std::min(n, share * params->ith);
    const int64_t last_row = std::min(n, first_row + share);
    const float w_scale = weight_scale(w);
    for (int64_t i3 = 0; i3 < x->ne[3]; ++i3) {
        for (int64_t i2 = 0; i2 < x->ne[2]; ++i2) {
            const char* matrix = static_cast<const char*>(w->data) + i2 / (x->ne[2] / w->ne[2]) * w->nb[2] +
                                 i3 / (x->ne[3] / w->ne[3]) * w->nb[3];
            char* out = static_cast<char*>(dst->data) + i2 * dst->nb[2] + i3 * dst->nb[3];
            multiply(tier, w, matrix, w_scale, act, first_slot + (i3 * x->ne[2] + i2) * m, m, first_row,
                     last_row, out, dst->nb[1]);
        }
    }
}

/// Rows of an I2_S tensor as floats, for a ternary token embedding.
void get_rows(const ggml_compute_params* params, ggml_tensor* dst) {
    const ggml_tensor* w = dst->src[0];
    const ggml_tensor* ids = dst->src[1];
    const float scale = weight_scale(w);
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
        const auto* row =
            reinterpret_cast<const uint8_t*>(w->data) + id * w->nb[1] + i1 * w->nb[2] + i2 * w->nb[3];
        float* out = reinterpret_cast<float*>(static_cast<char*>(dst->data) + i0 * dst->nb[1] +
                                              i1 * dst->nb[2] + i2 * dst->nb[3]);
        for (int64_t l = 0; l < w->ne[0]; ++l) {
            const uint8_t byte = row[l / TRIT_I2_S_BLOCK * TRIT_I2_S_BLOCK_BYTES + l % TRIT_I2_S_BLOCK_BYTES];
            const int shift = 6 - 2 * static_cast<int>(l % TRIT_I2_S_BLOCK / TRIT_I2_S_BLOCK_BYTES);
            out[l] = static_cast<float>(((byte >> shift) & 3) - 1) * scale;
        }
    }
}

class I2sTraits : public ggml::cpu::tensor_traits {
    bool work_size(int n_threads, const ggml_tensor* op, size_t& size) override {
        size = 0;
        if (op->op == GGML_OP_MUL_MAT) {
            // Said here, where the first graph is planned: while a model loads, the tools turn their log
            // down.
            std::call_once(said_, [] {
                GGML_LOG_INFO("trit: i2_s kernels of tier %s, self-test passed\n", trit_tier_chosen()->name);
            });
            const int64_t tokens = ggml_nrows(op->src[1]);
            size = Activations::bytes(each_for_itself(tokens) ? n_threads : tokens, op->src[0]->ne[0]);
        }
        return true;
    }

    bool compute_forward(ggml_compute_params* params, ggml_tensor* op) override {
        switch (op->op) {
            case GGML_OP_MUL_MAT:
                mul_mat(params, op);
                return true;
            case GGML_OP_GET_ROWS:
                get_rows(params, op);
                return true;
            default:
                GGML_ABORT(
                    "trit: %s of the i2_s tensor %s is not supported; convert the model to f16 or tq2_0",
                    ggml_op_name(op->op), op->src[0]->name);
        }
    }

    std::once_flag said_;
};

/// Ops that only pass a tensor on and never look at its values.
bool moves_no_data(ggml_op op) {
    return op == GGML_OP_NONE || op == GGML_OP_RESHAPE || op == GGML_OP_VIEW || op == GGML_OP_PERMUTE ||
           op == GGML_OP_TRANSPOSE;
}

class Interceptor : public ggml::cpu::extra_buffer_type {
    bool supports_op(ggml_backend_dev_t, const ggml_tensor*) override { return false; }

    ggml::cpu::tensor_traits* get_tensor_traits(const ggml_tensor* op) override {
        if (op->src[0] != nullptr && op->src[0]->type == GGML_TYPE_I2_S && !moves_no_data(op->op)) {
            return &traits_;
        }
        return nullptr;
    }

    I2sTraits traits_;
};

const char* buffer_type_name(ggml_backend_buffer_type_t) { return "trit"; }

/// Never reached by the loader, because supports_op is false for every op.
ggml_backend_buffer_t no_buffer(ggml_backend_buffer_type_t, size_t) { return nullptr; }

size_t alignment(ggml_backend_buffer_type_t) { return kAlign; }

}  // namespace

ggml_backend_buffer_type_t trit_interceptor_buffer_type(void);

ggml_backend_buffer_type_t trit_interceptor_buffer_type(void) {
    static Interceptor interceptor;
    static ggml_backend_buffer_type type = {
        {buffer_type_name, no_buffer, alignment, nullptr, nullptr, nullptr}, nullptr, &interceptor};
    return &type;
}
