// SPDX-License-Identifier: MIT
/// Names are translated here, once: ggml's ne00 is k, src0's ne01 is n, src1's ne11 is m.
#include "ggml/mul_mat.h"

#include <algorithm>
#include <cstring>

#include "ggml-impl.h"
#include "ggml/profile.h"
#include "ggml/repack.h"
#include "kernels/align.h"
#include "matrix/activations.h"
#include "matrix/matmul.h"
#include "matrix/packed_matrix.h"
#include "trit.h"

namespace trit {
namespace {

void check_types(const ggml_tensor* x, const ggml_tensor* dst) {
    GGML_ASSERT(x->type == GGML_TYPE_F32 && dst->type == GGML_TYPE_F32);
    GGML_ASSERT(x->nb[0] == sizeof(float) && dst->nb[0] == sizeof(float));
}

/// One token is quantised by every thread for itself: that is cheaper than a barrier. More tokens are shared
/// out.
bool each_for_itself(int64_t tokens) { return tokens == 1; }

/// Upper bound for the group: the data decides it after memory is planned.
int64_t planned_group(const ggml_tensor* w, bool packed) {
    return packed ? encoding_of(w->type)->group() : 0;
}

/// The weights of an op.
class Stack {
 public:
    Stack(const ggml_tensor* w, bool packed)
        : w_(w),
          packed_(packed),
          panels_(packed ? w->data : nullptr),
          encoding_(*encoding_of(w->type)),
          scale_(packed ? 0.0f : scale_of(w)) {}

    int64_t group() const { return packed_ ? panels_.group() : 0; }
    bool must_unpack(const Matmul& product) const { return packed_ && product.must_unpack(panels_); }
    /// A thread's share. Once all threads have passed a barrier, the weights are those at `memory`.
    void unpack(const Matmul& product, int thread, void* memory) {
        product.unpack(panels_, thread, memory);
        panels_ = PackedMatrix(memory);
    }
    /// The matrix at (i2, i3).
    Weights at(int64_t i2, int64_t i3) const {
        if (packed_) {
            return Weights::panels(panels_, i2 + i3 * w_->ne[2]);
        }
        return Weights::rows(encoding_, row_at<uint8_t>(w_, 0, i2, i3), w_->nb[1], scale_);
    }

 private:
    const ggml_tensor* w_;
    bool packed_;
    PackedMatrix panels_;
    const Encoding& encoding_;
    float scale_;
};

/// Tokens of one expert, in the order of the batch: `count` (slot, token) pairs from `first` on.
struct Routes {
    int32_t* order;  ///< pair index = token * slots + slot, sorted by expert
    int32_t* first;  ///< [experts + 1]

    static size_t bytes(const ggml_tensor* w, const ggml_tensor* ids) {
        return align_up((static_cast<size_t>(ggml_nelements(ids)) + static_cast<size_t>(w->ne[2]) + 1) *
                        sizeof(int32_t));
    }

    Routes(void* memory, const ggml_tensor* w, const ggml_tensor* ids)
        : order(static_cast<int32_t*>(memory)), first(order + ggml_nelements(ids)) {
        const int64_t experts = w->ne[2];
        const int64_t slots = ids->ne[0];
        const auto expert = [&](int64_t pair) {
            int32_t id = 0;
            std::memcpy(&id,
                        static_cast<const char*>(ids->data) + static_cast<size_t>(pair % slots) * ids->nb[0] +
                            static_cast<size_t>(pair / slots) * ids->nb[1],
                        sizeof(id));
            GGML_ASSERT(id >= 0 && id < experts);
            return id;
        };
        std::fill(first, first + experts + 1, 0);
        const int64_t pairs = ggml_nelements(ids);
        for (int64_t pair = 0; pair < pairs; ++pair) {
            ++first[expert(pair) + 1];
        }
        for (int64_t e = 0; e < experts; ++e) {
            first[e + 1] += first[e];
        }
        for (int64_t pair = 0; pair < pairs; ++pair) {
            order[first[expert(pair)]++] = static_cast<int32_t>(pair);
        }
        for (int64_t e = experts; e > 0; --e) {  // each start has moved to its end
            first[e] = first[e - 1];
        }
        first[0] = 0;
    }
};

Method method_of(const trit_tier& tier, const ggml_tensor* w, bool packed, int threads) {
    const Storage in_place = w->type == GGML_TYPE_I2_S ? Storage::kI2S : Storage::kRows;
    return Method::chosen(tier, *encoding_of(w->type), shape_of(w), packed ? Storage::kPanels : in_place,
                          threads);
}

/// Each expert has few tokens, and its own number of them: no tables over tokens.
Matmul matmul_of_experts(const ggml_tensor* w, bool packed, int64_t pairs, int threads) {
    const trit_tier& tier = *trit_tier_chosen();
    Method method = method_of(tier, w, packed, threads);
    method.many = {};
    return {tier, method, shape_of(w), pairs, threads};
}

}  // namespace

Matmul matmul_of(const ggml_tensor* w, bool packed, int64_t m, int threads) {
    const trit_tier& tier = *trit_tier_chosen();
    return {tier, method_of(tier, w, packed, threads), shape_of(w), m, threads};
}

bool is_ours(const ggml_tensor* w) { return only_ours(w->type) || is_packed(w); }

bool same_work_memory(const ggml_tensor* a, const ggml_tensor* b, int threads) {
    const ggml_tensor* w[] = {a->src[0], b->src[0]};
    size_t scratch[2];
    int64_t group[2];
    for (int i = 0; i < 2; ++i) {
        const bool packed = is_packed(w[i]);
        const Matmul product = matmul_of(w[i], packed, 1, threads);
        scratch[i] = product.scratch_bytes() + product.shared_bytes();
        group[i] = Stack(w[i], packed).group();
    }
    return w[0]->ne[0] == w[1]->ne[0] && scratch[0] == scratch[1] && group[0] == group[1];
}

size_t mul_mat_work_bytes(const ggml_tensor* op, bool packed, int threads) {
    const ggml_tensor* w = op->src[0];
    const int64_t tokens = ggml_nrows(op->src[1]);
    const int64_t rows = each_for_itself(tokens) ? threads : tokens;
    const Matmul product = matmul_of(w, packed, op->src[1]->ne[1], threads);
    // Without groups fewer bytes are needed.
    return Activations::bytes(rows, w->ne[0], planned_group(w, packed)) + product.shared_bytes() +
           static_cast<size_t>(threads) * product.scratch_bytes();
}

void mul_mat(const ggml_compute_params* params, ggml_tensor* dst, bool packed) {
    const ggml_tensor* w = dst->src[0];
    const ggml_tensor* x = dst->src[1];
    check_types(x, dst);
    const trit_tier& tier = *trit_tier_chosen();
    const int64_t m = x->ne[1];
    const int64_t tokens = ggml_nrows(x);
    const bool alone = each_for_itself(tokens);
    const Matmul product = matmul_of(w, packed, m, params->nth);
    Stack weights(w, packed);
    const Activations act(params->wdata, alone ? params->nth : tokens, w->ne[0], weights.group());
    TRIT_PROFILE(trit_profile_quantize());
    if (alone) {
        act.quantize(tier, row_at<float>(x, 0, 0, 0), params->ith);
        TRIT_PROFILE(trit_profile_product(dst));
    } else {
        for (int64_t t = params->ith; t < tokens; t += params->nth) {
            act.quantize(tier, row_at<float>(x, t % m, t / m % x->ne[2], t / m / x->ne[2]), t);
        }
        TRIT_PROFILE(trit_profile_product(dst));
        if (weights.must_unpack(product)) {
            weights.unpack(product, params->ith, act.end());
        }
        ggml_barrier(params->threadpool);
    }

    char* scratch = static_cast<char*>(act.end()) + product.shared_bytes() +
                    static_cast<size_t>(params->ith) * product.scratch_bytes();
    for (int64_t i3 = 0; i3 < x->ne[3]; ++i3) {
        for (int64_t i2 = 0; i2 < x->ne[2]; ++i2) {
            const auto row_of = [&](int64_t j) { return row_at<float>(dst, j, i2, i3); };
            const int64_t token = alone ? params->ith : (i3 * x->ne[2] + i2) * m;
            const int64_t w2 = i2 / (x->ne[2] / w->ne[2]);
            const int64_t w3 = i3 / (x->ne[3] / w->ne[3]);
            product.run(weights.at(w2, w3), act, token, m, params->ith, scratch, row_of);
        }
    }
}

size_t mul_mat_id_work_bytes(const ggml_tensor* op, bool packed, int threads) {
    const ggml_tensor* w = op->src[0];
    const int64_t pairs = ggml_nelements(op->src[2]);
    return Activations::bytes(pairs, w->ne[0], planned_group(w, packed)) +
           static_cast<size_t>(threads) *
               (matmul_of_experts(w, packed, pairs, threads).scratch_bytes() + Routes::bytes(w, op->src[2]));
}

/// dst[:, slot, token] = w[:, :, ids[slot, token]] x[:, slot or 0, token].
void mul_mat_id(const ggml_compute_params* params, ggml_tensor* dst, bool packed) {
    const ggml_tensor* w = dst->src[0];
    const ggml_tensor* x = dst->src[1];
    const ggml_tensor* ids = dst->src[2];
    check_types(x, dst);
    GGML_ASSERT(ids->type == GGML_TYPE_I32 && x->ne[3] == 1 && w->ne[3] == 1 && ids->ne[2] == 1);
    const trit_tier& tier = *trit_tier_chosen();
    const int64_t slots = ids->ne[0];
    const int64_t pairs = ggml_nelements(ids);
    const Matmul product = matmul_of_experts(w, packed, pairs, params->nth);
    const Stack weights(w, packed);
    const Activations act(params->wdata, pairs, w->ne[0], weights.group());
    const size_t own = product.scratch_bytes() + Routes::bytes(w, ids);
    char* scratch = static_cast<char*>(act.end()) + static_cast<size_t>(params->ith) * own;
    // Sorted by each thread for itself: some hundred integers against a barrier.
    const Routes routes(scratch + product.scratch_bytes(), w, ids);
    TRIT_PROFILE(trit_profile_quantize());
    for (int64_t i = params->ith; i < pairs; i += params->nth) {
        const int64_t pair = routes.order[i];
        act.quantize(tier, row_at<float>(x, pair % slots % x->ne[1], pair / slots, 0), i);
    }
    TRIT_PROFILE(trit_profile_product(dst));
    ggml_barrier(params->threadpool);

    for (int64_t e = 0; e < w->ne[2]; ++e) {
        const int64_t start = routes.first[e];
        const auto row_of = [&](int64_t j) {
            const int64_t pair = routes.order[start + j];
            return row_at<float>(dst, pair % slots, pair / slots);
        };
        product.run(weights.at(e, 0), act, start, routes.first[e + 1] - start, params->ith, scratch, row_of);
    }
}

}  // namespace trit
