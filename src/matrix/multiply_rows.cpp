// SPDX-License-Identifier: MIT
#include "matrix/multiply_rows.h"

#include <algorithm>

namespace trit {
namespace {

/// Inputs that are unpacked at once: whole blocks of every encoding. Their codes (32 KB) and their panel (8
/// KB) stay in a core's caches.
constexpr int64_t kInputs = 512;
constexpr size_t kCodesBytes = TRIT_PANEL_ROWS * kInputs;

size_t sums_bytes(int m) { return static_cast<size_t>(m) * TRIT_PANEL_ROWS * sizeof(int32_t); }

}  // namespace

size_t multiply_rows_bytes(int m) {
    return kCodesBytes + trit_panel_bytes(TRIT_PACKING_2_BITS, kInputs) + sums_bytes(m);
}

void multiply_rows(const trit_tier& tier, const Encoding& encoding, int64_t k, const uint8_t* rows,
                   size_t row_bytes, int n, const int8_t* q, size_t q_row_bytes, int m, void* scratch,
                   int32_t* c) {
    auto* codes = static_cast<uint8_t*>(scratch);
    uint8_t* panel = codes + kCodesBytes;
    auto* part = reinterpret_cast<int32_t*>(panel + trit_panel_bytes(TRIT_PACKING_2_BITS, kInputs));
    const int sums = m * TRIT_PANEL_ROWS;
    for (int64_t first = 0; first < k; first += kInputs) {
        const int64_t inputs = std::min(kInputs, k - first);
        for (int r = 0; r < n; ++r) {
            encoding.unpack(inputs, rows + static_cast<size_t>(r) * row_bytes + encoding.row_bytes(first),
                            codes + r * kInputs);
        }
        trit_panel_pack(TRIT_PACKING_2_BITS, inputs, n, codes, kInputs, panel);
        int32_t* to = first == 0 ? c : part;
        tier.panel[TRIT_PACKING_2_BITS](inputs, panel, q + first, q_row_bytes, m, to);
        for (int i = 0; first != 0 && i < sums; ++i) {
            c[i] += part[i];
        }
    }
}

}  // namespace trit
