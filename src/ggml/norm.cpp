// SPDX-License-Identifier: MIT
/// Root mean square norms of many rows, times their weights.
///
/// Upstream adds a row's squares one behind the other in double precision, each addition waiting for the one
/// before. The order stays here, and with it every bit, but several rows' sums grow side by side.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "ggml-cpu-impl.h"
#include "ggml.h"
#include "ggml/repack.h"
#include "kernels/tier.h"
#include "ops.h"

namespace {

constexpr int kRows = 8;

/// scales[r] = 1 / sqrt(mean of squares of rows[r][n] + eps)
void scales_of(const float* const rows[kRows], int64_t n, float eps, float scales[kRows]) {
    double sums[kRows] = {};
    for (int64_t i = 0; i < n; ++i) {
        TRIT_UNROLL
        for (int r = 0; r < kRows; ++r) {
            sums[r] += static_cast<double>(rows[r][i] * rows[r][i]);
        }
    }
    for (int r = 0; r < kRows; ++r) {
        const auto mean = static_cast<float>(sums[r] / static_cast<double>(n));
        scales[r] = 1.0f / std::sqrt(mean + eps);
    }
}

}  // namespace

/// What ggml-cpu.c calls in place of ggml_compute_forward_rms_norm_mul_fused (CMakeLists.txt renames it
/// there).
extern "C" void trit_rms_norm_mul(const ggml_compute_params* params, ggml_tensor* norm,
                                  ggml_tensor* product) {
    const ggml_tensor* x = norm->src[0];
    const ggml_tensor* w = product->src[0] == norm ? product->src[1] : product->src[0];
    const int64_t n = x->ne[0];
    const int64_t all_rows = ggml_nrows(x);
    const int64_t blocks = (all_rows + kRows - 1) / kRows;
    if (ggml_nrows(w) != 1 || blocks < params->nth) {
        ggml_compute_forward_rms_norm_mul_fused(params, norm, product);
        return;
    }
    float eps = 0.0f;
    std::memcpy(&eps, norm->op_params, sizeof(eps));
    const auto* weights = static_cast<const float*>(w->data);
    const auto row = [](const ggml_tensor* t, int64_t i) {
        return trit::row_at<float>(t, i % t->ne[1], i / t->ne[1] % t->ne[2], i / t->ne[1] / t->ne[2]);
    };
    for (int64_t b = blocks * params->ith / params->nth; b < blocks * (params->ith + 1) / params->nth; ++b) {
        const int64_t first = b * kRows;
        const int64_t count = std::min<int64_t>(kRows, all_rows - first);
        const float* rows[kRows];
        float scales[kRows];
        for (int64_t r = 0; r < kRows; ++r) {
            rows[r] = row(x, first + std::min(r, count - 1));
        }
        scales_of(rows, n, eps, scales);
        // The result may lie where the rows are.
        for (int64_t r = 0; r < count; ++r) {
            float* out = row(product, first + r);
            for (int64_t i = 0; i < n; ++i) {
                out[i] = rows[r][i] * scales[r] * weights[i];
            }
        }
    }
}
