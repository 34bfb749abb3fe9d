// SPDX-License-Identifier: MIT
/// Upstream hands out rows in small alternating chunks, so that no thread reads a linear stream, and waits
/// for memory. Here each thread has one contiguous range of rows and asks for the bytes ahead. Every number
/// comes from upstream's own conversion and dot product, or from a kernel that gives the same bits and was
/// compared with it in this process: results are the bits of that dot product in any case.
#include "ggml/head.h"

#include <algorithm>
#include <cstring>

#include "ggml-backend-impl.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "ggml/repack.h"
#include "kernels/align.h"
#include "trit.h"

namespace trit {
namespace {

/// Smaller matrices stay in a cache from token to token.
constexpr size_t kLeastBytes = size_t{4} << 20;
constexpr size_t kAhead = 6144;

/// Tokens whose bytes stay in the first-level cache while a block of rows is multiplied by them.
constexpr int64_t kGroupTokens = TRIT_Q6_K_TOKENS;
/// Rows that stay in the second-level cache from one group of tokens to the next.
constexpr int64_t kBlockRows = 16;

/// Most tokens for which upstream's way is its plain dot product (more go to tiled or sgemm kernels).
int64_t most_tokens(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_K:
        case GGML_TYPE_Q5_K:
        case GGML_TYPE_Q6_K:
            return ggml_get_type_traits_cpu(type)->nrows == 1 ? kGroupTokens : 1;
        case GGML_TYPE_F16:
        case GGML_TYPE_BF16:
        case GGML_TYPE_Q8_0:
            return 1;
        default:
            return 0;
    }
}

/// Logits come from one of these. They take one way for any number of tokens: what a token gets must not
/// depend on what is computed beside it. Other matrices of many tokens are left to upstream's tiles.
bool is_head(const ggml_tensor* w) {
    return std::strcmp(w->name, "output.weight") == 0 || std::strcmp(w->name, "token_embd.weight") == 0;
}

/// Few tokens are converted by every thread for itself: that is cheaper than a barrier.
bool each_for_itself(int64_t m) { return m <= kGroupTokens; }

void prefetch([[maybe_unused]] const char* p) {
#if defined(__GNUC__)
    __builtin_prefetch(p);
#endif
}

/// The tier's q6_K kernel, if it agrees with upstream's dot product as it was compiled here; else nullptr.
trit_q6_k_fn checked_q6_k() {
    const trit_q6_k_fn q6_k = trit_tier_chosen()->rank > 0 ? trit_tier_chosen()->q6_k : nullptr;
    if (q6_k == nullptr) {
        return nullptr;
    }
    constexpr int kInputs = 4 * TRIT_K_BLOCK;
    constexpr int kRows = 3;
    float values[(kRows + 1) * kInputs];
    uint32_t state = 1;
    for (float& value : values) {
        state = state * 1664525u + 1013904223u;  // Numerical Recipes' generator
        value = (static_cast<float>(state >> 8) / 8388608.0f - 1.0f) * static_cast<float>(1 + state % 5);
    }
    constexpr size_t kRowBytes = kInputs / TRIT_K_BLOCK * TRIT_Q6_K_BYTES;
    uint8_t rows[kRows * kRowBytes];
    uint8_t token[kInputs / TRIT_K_BLOCK * TRIT_Q8_K_BYTES];
    ggml_quantize_chunk(GGML_TYPE_Q6_K, values, rows, 0, kRows, kInputs, nullptr);
    ggml_get_type_traits_cpu(GGML_TYPE_Q8_K)->from_float(values + kRows * kInputs, token, kInputs);
    float expected[kRows];
    for (int i = 0; i < kRows; ++i) {
        ggml_get_type_traits_cpu(GGML_TYPE_Q6_K)
            ->vec_dot(kInputs, expected + i, 0, rows + i * kRowBytes, 0, token, 0, 1);
    }
    float actual[kRows];
    float* out = actual;
    q6_k(kInputs, rows, kRowBytes, kRows, token, sizeof(token), 1, &out);
    return std::memcmp(expected, actual, sizeof(expected)) == 0 ? q6_k : nullptr;
}

}  // namespace

bool can_stream(const ggml_tensor* op) {
    const ggml_tensor* w = op->src[0];
    const ggml_tensor* x = op->src[1];
    if (op->op != GGML_OP_MUL_MAT || x->type != GGML_TYPE_F32 || op->type != GGML_TYPE_F32) {
        return false;
    }
    const int64_t most = most_tokens(w->type);
    const bool wanted = is_head(w) ? most > 0 : x->ne[1] <= most && ggml_nbytes(w) >= kLeastBytes;
    return wanted && x->ne[2] == 1 && x->ne[3] == 1 && w->ne[2] == 1 && w->ne[3] == 1 &&
           ggml_is_contiguous(w) && x->nb[0] == sizeof(float) &&
           (w->buffer == nullptr || ggml_backend_buft_is_host(w->buffer->buft));
}

size_t stream_work_bytes(const ggml_tensor* op, int threads) {
    const ggml_tensor* x = op->src[1];
    const ggml_type to = ggml_get_type_traits_cpu(op->src[0]->type)->vec_dot_type;
    const size_t copies = each_for_itself(x->ne[1]) ? static_cast<size_t>(threads) : 1;
    return copies * align_up(ggml_row_size(to, x->ne[0]) * static_cast<size_t>(x->ne[1])) + kCacheLine;
}

void stream(const ggml_compute_params* params, ggml_tensor* dst) {
    const ggml_tensor* w = dst->src[0];
    const ggml_tensor* x = dst->src[1];
    const ggml_type_traits_cpu* traits = ggml_get_type_traits_cpu(w->type);
    const int64_t k = w->ne[0];
    const int64_t n = w->ne[1];
    const int64_t m = x->ne[1];
    const bool alone = each_for_itself(m);
    const size_t token_bytes = ggml_row_size(traits->vec_dot_type, k);
    char* tokens = reinterpret_cast<char*>(align_up(reinterpret_cast<size_t>(params->wdata)));
    if (alone) {
        tokens += static_cast<size_t>(params->ith) * align_up(token_bytes * static_cast<size_t>(m));
    }
    const auto from_float = ggml_get_type_traits_cpu(traits->vec_dot_type)->from_float;
    for (int64_t j = alone ? 0 : params->ith; j < m; j += alone ? 1 : params->nth) {
        from_float(row_at<float>(x, j), tokens + static_cast<size_t>(j) * token_bytes, k);
    }
    if (!alone) {
        ggml_barrier(params->threadpool);
    }
    static const trit_q6_k_fn checked = checked_q6_k();
    const trit_q6_k_fn q6_k = w->type == GGML_TYPE_Q6_K ? checked : nullptr;
    const auto multiply = [&](int64_t first, int64_t last, int64_t from, int64_t to) {
        float* out[kGroupTokens];
        for (int64_t j = from; j < to; ++j) {
            out[j - from] = row_at<float>(dst, j) + first;
        }
        const char* group = tokens + static_cast<size_t>(from) * token_bytes;
        if (q6_k != nullptr) {
            q6_k(k, row_at<uint8_t>(w, first), w->nb[1], last - first,
                 reinterpret_cast<const uint8_t*>(group), token_bytes, static_cast<int>(to - from), out);
            return;
        }
        for (int64_t r = first; r < last; ++r) {
            const char* row = row_at<char>(w, r);
            for (size_t line = 0; line < w->nb[1]; line += kCacheLine) {
                prefetch(row + kAhead + line);
            }
            for (int64_t j = 0; j < to - from; ++j) {
                traits->vec_dot(static_cast<int>(k), out[j] + (r - first), 0, row, 0,
                                group + static_cast<size_t>(j) * token_bytes, 0, 1);
            }
        }
    };
    const int64_t end = n * (params->ith + 1) / params->nth;
    const int64_t groups = (m + kGroupTokens - 1) / kGroupTokens;
    const int64_t block = groups == 1 ? n : kBlockRows;
    for (int64_t first = n * params->ith / params->nth; first < end; first += block) {
        for (int64_t g = 0; g < groups; ++g) {
            multiply(first, std::min(first + block, end), m * g / groups, m * (g + 1) / groups);
        }
    }
}

}  // namespace trit
