// SPDX-License-Identifier: MIT
/// Names are translated here, once: ggml's ne00 is k, src0's ne01 is n, src1's ne11 is m.
#include "ggml/mul_mat.h"

#include <algorithm>
#include <cstring>

#include "ggml-impl.h"
#include "ggml/profile.h"
#include "ggml/repack.h"
#include "matrix/activations.h"
#include "matrix/lookup_plan.h"
#include "matrix/multiply_rows.h"
#include "matrix/packed_matrix.h"
#include "matrix/tuning.h"
#include "trit.h"

namespace trit {
namespace {

/// Activations of this many bytes stay in a core's second-level cache while the weights stream by.
constexpr int64_t kTokenBlockBytes = 1024 * 1024;
constexpr int64_t kMaxTokenBlock = 240;  // a multiple of every tier's tile

int token_block(int64_t k, int64_t tokens) {
    const int64_t fit = std::clamp<int64_t>(kTokenBlockBytes / k / 12 * 12, 12, kMaxTokenBlock);
    return static_cast<int>(std::min(fit, std::max<int64_t>(tokens, 1)));
}

/// Tensors in place are read by kernels of their own (i2_s), or unpacked again for every product.
bool is_unpacked(const ggml_tensor* w, bool packed) { return !packed && w->type != GGML_TYPE_I2_S; }

/// As it was packed, if the data allowed it: that is decided after memory is planned.
trit_packing planned_packing(const ggml_tensor* w) {
    return PackedMatrix::packing_for(*trit_tier_chosen(), *encoding_of(w->type), shape_of(w));
}

/// possible: whether tables over tokens can read the weights, or panels of 2 bits made of them.
LookupPlan plan_lookup(const ggml_tensor* w, bool possible, int64_t m, int threads) {
    const bool asked = possible && m > 1;
    return {asked ? lookup_choice(w->ne[1], w->ne[0], threads) : LookupChoice{}, m, w->ne[1], threads};
}

/// Bytes for panels of 2 bits made of table indices. Look-up kernels go through all rows again and again; the
/// tier's own kernels take one panel after the other, and need only one at a time.
size_t unpacked_bytes(const ggml_tensor* w, int64_t m, bool packed, int threads) {
    const bool unpacks =
        packed && planned_packing(w) >= TRIT_TIER_PACKINGS && plan_lookup(w, true, m, threads).tokens() > 0;
    return unpacks ? PackedMatrix::unpacked_bytes(shape_of(w)) : 0;
}

/// The weights of an op: rows of one of `count` matrices times tokens.
class Weights {
 public:
    Weights(const ggml_tensor* w, bool packed)
        : w_(w),
          packed_(packed),
          unpacks_(is_unpacked(w, packed)),
          scale_(packed ? 0.0f : scale_of(w)),
          matrix_(packed ? w->data : nullptr) {}

    int64_t group() const { return packed_ ? matrix_.group() : 0; }
    /// Whether a plan needs the weights in another form than they have.
    bool must_be_unpacked(const LookupPlan& plan) const {
        return plan.tokens() > 0 && matrix_.packing() != TRIT_PACKING_2_BITS;
    }
    /// A thread's share. Once all threads have passed a barrier, the weights are those at `memory`.
    void unpack(int thread, int threads, void* memory) {
        matrix_.unpack(w_->ne[2] * w_->ne[3], thread, threads, memory);
        matrix_ = PackedMatrix(memory);
    }
    Panels matrix(int64_t i) const { return matrix_.matrix(i); }
    /// How many of m tokens go through tables.
    LookupPlan lookup_plan(int64_t m, int threads) const {
        return plan_lookup(w_, packed_ && matrix_.has_tables(), m, threads);
    }

    /// Contiguous rows for a thread, so that each reads one linear stream; in whole tiles.
    void share(int thread, int threads, int64_t* first, int64_t* last) const {
        const int64_t tile = packed_ || unpacks_ ? TRIT_PANEL_ROWS : 4;
        const int64_t tiles = (w_->ne[1] + tile - 1) / tile;
        *first = std::min(tiles * thread / threads * tile, w_->ne[1]);
        *last = std::min(tiles * (thread + 1) / threads * tile, w_->ne[1]);
    }

    /// Rows [first, last) of the matrix at (i2, i3) times activation rows token ... token + m - 1.
    void multiply(const trit_tier& tier, int64_t i2, int64_t i3, int64_t first, int64_t last,
                  const Activations& act, int64_t token, int m, void* scratch, float* const* out) const {
        if (packed_) {
            const int64_t end = (last + TRIT_PANEL_ROWS - 1) / TRIT_PANEL_ROWS;
            matrix_.multiply(tier, i2 + i3 * w_->ne[2], first / TRIT_PANEL_ROWS, end, act.q(token),
                             act.row_bytes(), act.scale(token), act.sum(token), m, scratch, out);
            return;
        }
        for (int64_t r = first; r < last; r += TRIT_PANEL_ROWS) {
            const int rows = static_cast<int>(std::min<int64_t>(TRIT_PANEL_ROWS, last - r));
            const auto* codes = static_cast<const uint8_t*>(w_->data) + static_cast<size_t>(i2) * w_->nb[2] +
                                static_cast<size_t>(i3) * w_->nb[3] + static_cast<size_t>(r) * w_->nb[1];
            auto* c = static_cast<int32_t*>(scratch);
            if (unpacks_) {
                multiply_rows(tier, *encoding_of(w_->type), w_->ne[0], codes, w_->nb[1], rows, act.q(token),
                              act.row_bytes(), m, c + m * TRIT_PANEL_ROWS, c);
            } else {
                tier.i2_s(w_->ne[0], codes, w_->nb[1], rows, act.q(token), act.row_bytes(), m, c,
                          TRIT_PANEL_ROWS);
            }
            for (int j = 0; j < m; ++j) {
                tier.finish(rows, c + j * TRIT_PANEL_ROWS, *act.sum(token + j), *act.scale(token + j),
                            &scale_, 0, out[j] + r);
            }
        }
    }

 private:
    const ggml_tensor* w_;
    bool packed_;
    bool unpacks_;
    float scale_;
    PackedMatrix matrix_;
};

const float* source_row(const ggml_tensor* x, int64_t i1, int64_t i2, int64_t i3) {
    return reinterpret_cast<const float*>(
        static_cast<const char*>(x->data) + static_cast<size_t>(i1) * x->nb[1] +
        static_cast<size_t>(i2) * x->nb[2] + static_cast<size_t>(i3) * x->nb[3]);
}

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

size_t scratch_bytes(const ggml_tensor* w, int64_t tokens, bool packed) {
    const int m = token_block(w->ne[0], tokens);
    if (is_unpacked(w, packed)) {
        return align_up(static_cast<size_t>(m) * TRIT_PANEL_ROWS * sizeof(int32_t)) + multiply_rows_bytes(m);
    }
    const trit_packing packing = packed ? planned_packing(w) : TRIT_PACKING_2_BITS;
    return align_up(PackedMatrix::scratch_bytes(w->ne[0], m, packing));
}

/// The same, for products that may go through tables: also decided by the data.
size_t scratch_bytes(const ggml_tensor* w, int64_t tokens, bool packed, int threads) {
    const LookupPlan plan = plan_lookup(w, packed, tokens, threads);
    return std::max(scratch_bytes(w, tokens, packed), align_up(plan.scratch_bytes()));
}

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

}  // namespace

size_t mul_mat_work_bytes(const ggml_tensor* op, bool packed, int threads) {
    const ggml_tensor* w = op->src[0];
    const int64_t tokens = ggml_nrows(op->src[1]);
    const int64_t rows = each_for_itself(tokens) ? threads : tokens;
    // Without groups fewer bytes are needed.
    const int64_t m = op->src[1]->ne[1];
    return Activations::bytes(rows, w->ne[0], planned_group(w, packed)) +
           unpacked_bytes(w, m, packed, threads) +
           static_cast<size_t>(threads) * scratch_bytes(w, m, packed, threads);
}

void mul_mat(const ggml_compute_params* params, ggml_tensor* dst, bool packed) {
    const ggml_tensor* w = dst->src[0];
    const ggml_tensor* x = dst->src[1];
    check_types(x, dst);
    const trit_tier& tier = *trit_tier_chosen();
    Weights weights(w, packed);
    const int64_t k = w->ne[0];
    const int64_t m = x->ne[1];
    const int64_t tokens = ggml_nrows(x);
    const bool alone = each_for_itself(tokens);
    const LookupPlan plan = weights.lookup_plan(m, params->nth);
    const Activations act(params->wdata, alone ? params->nth : tokens, k, weights.group());
    TRIT_PROFILE(trit_profile_quantize());
    if (alone) {
        act.quantize(tier, source_row(x, 0, 0, 0), params->ith);
        TRIT_PROFILE(trit_profile_product(dst));
    } else {
        for (int64_t t = params->ith; t < tokens; t += params->nth) {
            act.quantize(tier, source_row(x, t % m, t / m % x->ne[2], t / m / x->ne[2]), t);
        }
        TRIT_PROFILE(trit_profile_product(dst));
        if (weights.must_be_unpacked(plan)) {
            weights.unpack(params->ith, params->nth, act.end());
        }
        ggml_barrier(params->threadpool);
    }

    int64_t first = 0;
    int64_t last = 0;
    weights.share(params->ith, params->nth, &first, &last);
    const int block = token_block(k, m);
    char* scratch = static_cast<char*>(act.end()) + unpacked_bytes(w, m, packed, params->nth) +
                    static_cast<size_t>(params->ith) * scratch_bytes(w, m, packed, params->nth);
    float* out[kMaxTokenBlock];
    for (int64_t i3 = 0; i3 < x->ne[3]; ++i3) {
        for (int64_t i2 = 0; i2 < x->ne[2]; ++i2) {
            char* results = static_cast<char*>(dst->data) + static_cast<size_t>(i2) * dst->nb[2] +
                            static_cast<size_t>(i3) * dst->nb[3];
            const int64_t token = alone ? params->ith : (i3 * x->ne[2] + i2) * m;
            const auto row_of = [&](int64_t j) {
                return reinterpret_cast<float*>(results + static_cast<size_t>(j) * dst->nb[1]);
            };
            const int64_t w2 = i2 / (x->ne[2] / w->ne[2]);
            const int64_t w3 = i3 / (x->ne[3] / w->ne[3]);
            if (plan.tokens() > 0) {
                plan.run(tier, weights.matrix(w2 + w3 * w->ne[2]), act, token, params->ith, params->nth,
                         scratch, row_of);
            }
            for (int64_t t = plan.tokens(); t < m; t += block) {
                const int count = static_cast<int>(std::min<int64_t>(block, m - t));
                for (int j = 0; j < count; ++j) {
                    out[j] = row_of(t + j);
                }
                weights.multiply(tier, w2, w3, first, last, act, token + t, count, scratch, out);
            }
        }
    }
}

size_t mul_mat_id_work_bytes(const ggml_tensor* op, bool packed, int threads) {
    const ggml_tensor* w = op->src[0];
    const int64_t pairs = ggml_nelements(op->src[2]);
    return Activations::bytes(pairs, w->ne[0], planned_group(w, packed)) +
           static_cast<size_t>(threads) * (scratch_bytes(w, pairs, packed) + Routes::bytes(w, op->src[2]));
}

/// dst[:, slot, token] = w[:, :, ids[slot, token]] x[:, slot or 0, token].
void mul_mat_id(const ggml_compute_params* params, ggml_tensor* dst, bool packed) {
    const ggml_tensor* w = dst->src[0];
    const ggml_tensor* x = dst->src[1];
    const ggml_tensor* ids = dst->src[2];
    check_types(x, dst);
    GGML_ASSERT(ids->type == GGML_TYPE_I32 && x->ne[3] == 1 && w->ne[3] == 1 && ids->ne[2] == 1);
    const trit_tier& tier = *trit_tier_chosen();
    const Weights weights(w, packed);
    const int64_t k = w->ne[0];
    const int64_t slots = ids->ne[0];
    const int64_t pairs = ggml_nelements(ids);
    const Activations act(params->wdata, pairs, k, weights.group());
    const size_t own = scratch_bytes(w, pairs, packed) + Routes::bytes(w, ids);
    char* scratch = static_cast<char*>(act.end()) + static_cast<size_t>(params->ith) * own;
    // Sorted by each thread for itself: some hundred integers against a barrier.
    const Routes routes(scratch + scratch_bytes(w, pairs, packed), w, ids);
    TRIT_PROFILE(trit_profile_quantize());
    for (int64_t i = params->ith; i < pairs; i += params->nth) {
        const int64_t pair = routes.order[i];
        act.quantize(tier, source_row(x, pair % slots % x->ne[1], pair / slots, 0), i);
    }
    TRIT_PROFILE(trit_profile_product(dst));
    ggml_barrier(params->threadpool);

    int64_t first = 0;
    int64_t last = 0;
    weights.share(params->ith, params->nth, &first, &last);
    const int block = token_block(k, pairs);
    float* out[kMaxTokenBlock];
    for (int64_t e = 0; e < w->ne[2]; ++e) {
        for (int64_t i = routes.first[e]; i < routes.first[e + 1]; i += block) {
            const int count = static_cast<int>(std::min<int64_t>(block, routes.first[e + 1] - i));
            for (int j = 0; j < count; ++j) {
                const int64_t pair = routes.order[i + j];
                out[j] = reinterpret_cast<float*>(static_cast<char*>(dst->data) +
                                                  static_cast<size_t>(pair % slots) * dst->nb[1] +
                                                  static_cast<size_t>(pair / slots) * dst->nb[2]);
            }
            weights.multiply(tier, e, 0, first, last, act, i, count, scratch, out);
        }
    }
}

}  // namespace trit
