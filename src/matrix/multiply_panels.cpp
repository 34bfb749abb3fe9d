// SPDX-License-Identifier: MIT
#include "matrix/multiply_panels.h"

#include <algorithm>
#include <cstring>

#include "kernels/align.h"
#include "matrix/activations.h"

namespace trit {
namespace {

/// A panel of table indices as one of 2 bits.
void unpack_panel(const trit_lookup_kernel& few, int64_t k, const uint8_t* panel, uint8_t* out) {
    if (few.to_2_bits != nullptr) {
        few.to_2_bits(k, panel, out);
    } else {
        trit_panel_to_2_bits(few.packing, k, panel, out);
    }
}

/// Of m tokens with a panel: integers, and floats where groups have scales.
size_t sums_bytes(int m) {
    return align_up(static_cast<size_t>(m) * TRIT_PANEL_ROWS * (sizeof(int32_t) + sizeof(float)));
}

/// Few tokens times `count` panels from p on, by the kernel that reads their indices.
void look_up(const trit_tier& tier, const trit_lookup_kernel& few, const Panels& w, int64_t p, int count,
             const int8_t* q, size_t q_row_bytes, const float* scale, int m, void* scratch,
             float* const* out) {
    auto* c = reinterpret_cast<int32_t*>(static_cast<char*>(scratch) + align_up(few.work_bytes));
    const size_t stride = static_cast<size_t>(count) * TRIT_PANEL_ROWS;
    few.multiply(w.k, w.data + static_cast<size_t>(p) * w.panel_bytes, w.panel_bytes, count, q, q_row_bytes,
                 m, scratch, c, stride);
    for (int j = 0; j < m; ++j) {
        finish_panels(tier, w, p, count, c + static_cast<size_t>(j) * stride, scale[j], out[j]);
    }
}

/// A panel times m tokens at once.
void multiply_panel(const trit_tier& tier, const PackedMatrix& matrix, trit_panel_fn panel_fn,
                    const uint8_t* panel, const Panels& w, int64_t p, const int8_t* q, size_t q_row_bytes,
                    const float* scale, const int32_t* sum, int m, void* scratch, float* const* out) {
    const int64_t first = p * TRIT_PANEL_ROWS;
    const int rows = static_cast<int>(std::min<int64_t>(TRIT_PANEL_ROWS, w.n - first));
    auto* c = static_cast<int32_t*>(scratch);
    auto* acc = reinterpret_cast<float*>(c + m * TRIT_PANEL_ROWS);
    if (matrix.group() == 0) {
        panel_fn(w.k, panel, q, q_row_bytes, m, c);
        for (int j = 0; j < m; ++j) {
            tier.finish(rows, c + j * TRIT_PANEL_ROWS, sum[j], scale[j], &w.scale, 0, out[j] + first);
        }
        return;
    }
    std::memset(acc, 0, static_cast<size_t>(m) * TRIT_PANEL_ROWS * sizeof(*acc));
    const int64_t group = matrix.group();
    const int64_t groups = groups_of(w.k, group);
    for (int64_t g = 0; g < groups; ++g) {
        const int64_t inputs = std::min(group, w.k - g * group);
        const auto* w_scale = reinterpret_cast<const uint16_t*>(panel);
        panel += PackedMatrix::kScalesBytes;
        panel_fn(inputs, panel, q + g * group, q_row_bytes, m, c);
        panel += trit_panel_bytes(matrix.packing(), inputs);
        for (int j = 0; j < m; ++j) {
            tier.accumulate(c + j * TRIT_PANEL_ROWS, sum[j * groups + g], 1.0f / scale[j * groups + g],
                            w_scale, acc + j * TRIT_PANEL_ROWS);
        }
    }
    for (int j = 0; j < m; ++j) {
        std::memcpy(out[j] + first, acc + j * TRIT_PANEL_ROWS, static_cast<size_t>(rows) * sizeof(float));
    }
}

}  // namespace

void multiply_panels(const trit_tier& tier, const PackedMatrix& w, const LookupChoice& few, int at_once,
                     int64_t i, int64_t first, int64_t last, const int8_t* q, size_t q_row_bytes,
                     const float* scale, const int32_t* sum, int m, void* scratch, float* const* out) {
    const Panels panels = w.matrix(i);
    if (w.packing() >= TRIT_TIER_PACKINGS && m < kLeastUnpacked) {
        const trit_lookup_kernel& kernel = *few.kernel;
        for (int j = 0; j < m; j += kernel.tokens) {
            const int some = std::min(kernel.tokens, m - j);
            for (int64_t p = first; p < last; p += few.panels) {
                const int count = static_cast<int>(std::min<int64_t>(few.panels, last - p));
                look_up(tier, kernel, panels, p, count, q + static_cast<size_t>(j) * q_row_bytes, q_row_bytes,
                        scale + j, some, scratch, out + j);
            }
        }
        return;
    }
    const bool has_indices = w.packing() >= TRIT_TIER_PACKINGS;  // of tables that many tokens have no use for
    auto* two_bits = static_cast<uint8_t*>(scratch) + sums_bytes(m);
    const trit_panel_fn panel_fn = tier.panel[has_indices ? TRIT_PACKING_2_BITS : w.packing()];
    const int64_t groups = groups_of(panels.k, w.group());
    const int calls = at_once > 0 ? (m + at_once - 1) / at_once : 1;  // of nearly the same size
    for (int64_t p = first; p < last; ++p) {
        const uint8_t* panel = panels.data + static_cast<size_t>(p) * panels.panel_bytes;
        if (has_indices) {
            unpack_panel(*few.kernel, panels.k, panel, two_bits);
            panel = two_bits;
        }
        for (int call = 0; call < calls; ++call) {
            const int from = m * call / calls;
            multiply_panel(tier, w, panel_fn, panel, panels, p, q + static_cast<size_t>(from) * q_row_bytes,
                           q_row_bytes, scale + from * groups, sum + from * groups,
                           m * (call + 1) / calls - from, scratch, out + from);
        }
    }
}

size_t multiply_panels_bytes(trit_packing packing, const LookupChoice& few, int64_t k, int m) {
    const size_t sums = sums_bytes(m);
    if (packing < TRIT_TIER_PACKINGS) {
        return sums;
    }
    const int tokens = std::min(m, few.kernel->tokens);
    const size_t looked_up = align_up(few.kernel->work_bytes) +
                             static_cast<size_t>(tokens * few.panels * TRIT_PANEL_ROWS) * sizeof(int32_t);
    return std::max(looked_up, sums + (m >= kLeastUnpacked ? trit_panel_bytes(TRIT_PACKING_2_BITS, k) : 0));
}

void finish_panels(const trit_tier& tier, const Panels& w, int64_t p, int count, const int32_t* sums,
                   float act_scale, float* out) {
    const int64_t end = std::min((p + count) * TRIT_PANEL_ROWS, w.n);
    for (int64_t row = p * TRIT_PANEL_ROWS; row < end; row += TRIT_PANEL_ROWS, sums += TRIT_PANEL_ROWS) {
        const int rows = static_cast<int>(std::min<int64_t>(TRIT_PANEL_ROWS, end - row));
        // There is nothing to take off: the sums are not of codes.
        tier.finish(rows, sums, 0, act_scale, &w.scale, 0, out + row);
    }
}

void unpack_panels(const PackedMatrix& w, const trit_lookup_kernel& few, int64_t count, int thread,
                   int threads, void* memory) {
    const Panels from = w.matrix(0);
    PackedMatrix::Header h = w.header();
    h.packing = TRIT_PACKING_2_BITS;
    h.panel_bytes = static_cast<int64_t>(trit_panel_bytes(TRIT_PACKING_2_BITS, h.k));
    auto* to = static_cast<uint8_t*>(memory) + PackedMatrix::kHeaderBytes;
    if (thread == 0) {
        std::memcpy(memory, &h, sizeof(h));
        std::memcpy(to, w.scales(), static_cast<size_t>(h.scales_bytes));
    }
    to += h.scales_bytes;
    const int64_t panels = w.panels() * count;
    const int64_t end = panels * (thread + 1) / threads;
    for (int64_t p = panels * thread / threads; p < end; ++p) {
        unpack_panel(few, from.k, from.data + static_cast<size_t>(p) * from.panel_bytes,
                     to + p * h.panel_bytes);
    }
}

}  // namespace trit
