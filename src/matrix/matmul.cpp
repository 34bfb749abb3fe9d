// SPDX-License-Identifier: MIT
#include "matrix/matmul.h"

#include "kernels/align.h"
#include "matrix/multiply_panels.h"
#include "matrix/multiply_rows.h"
#include "matrix/tuning.h"

namespace trit {
namespace {

/// Activations of this many bytes stay in a core's second-level cache while the weights stream by.
constexpr int64_t kTokenBlockBytes = 1024 * 1024;

bool has_indices(const Method& method) {
    return method.storage == Storage::kPanels && method.packing >= TRIT_TIER_PACKINGS;
}

}  // namespace

Method Method::chosen(const trit_tier& tier, const Encoding& encoding, const Shape& shape, Storage storage,
                      int threads) {
    Method method;
    method.storage = storage;
    if (storage != Storage::kPanels) {
        return method;
    }
    method.packing = PackedMatrix::packing_for(tier, encoding, shape);
    if (method.packing >= TRIT_TIER_PACKINGS) {
        method.few = LookupChoice::of(trit_lookup_chosen(method.packing));
    }
    if (method.packing != TRIT_PACKING_5_TRITS) {
        method.many = lookup_choice(shape.n, shape.k, threads);
    }
    method.at_once = tokens_at_once(method.packing);
    return method;
}

// One token never goes through tables over tokens, whatever a kernel says.
Matmul::Matmul(const trit_tier& tier, const Method& method, const Shape& shape, int64_t m, int threads)
    : tier_(tier),
      method_(method),
      shape_(shape),
      threads_(threads),
      block_(block_of(shape.k, m)),
      tables_(m > 1 ? method.many : LookupChoice{}, m, shape.n, threads) {}

int Matmul::block_of(int64_t k, int64_t m) {
    const int64_t fit = std::clamp<int64_t>(kTokenBlockBytes / k / 12 * 12, 12, kMostBlockTokens);
    return static_cast<int>(std::min(fit, std::max<int64_t>(m, 1)));
}

size_t Matmul::scratch_bytes() const {
    if (method_.storage == Storage::kRows) {
        return align_up(static_cast<size_t>(block_) * TRIT_PANEL_ROWS * sizeof(int32_t)) +
               multiply_rows_bytes(block_);
    }
    const size_t own = multiply_panels_bytes(method_.packing, method_.few, shape_.k, block_);
    return align_up(std::max(own, tables_.scratch_bytes()));
}

size_t Matmul::shared_bytes() const {
    // Kernels for many tokens go through all rows again and again; the tier's own kernels take one panel
    // after the other, and need only one of 2 bits at a time.
    return has_indices(method_) && tables_.tokens() > 0 ? align_up(PackedMatrix::two_bits_bytes(shape_)) : 0;
}

void Matmul::share(int thread, int64_t* first, int64_t* last) const {
    const int64_t tile = method_.storage == Storage::kI2S ? 4 : TRIT_PANEL_ROWS;
    const int64_t tiles = (shape_.n + tile - 1) / tile;
    *first = std::min(tiles * thread / threads_ * tile, shape_.n);
    *last = std::min(tiles * (thread + 1) / threads_ * tile, shape_.n);
}

void Matmul::unpack(const PackedMatrix& w, int thread, void* shared) const {
    unpack_panels(w, *method_.few.kernel, shape_.count, thread, threads_, shared);
}

void Matmul::multiply(const Weights& w, const Activations& act, int64_t token, int m, int thread,
                      void* scratch, float* const* out) const {
    int64_t first = 0;
    int64_t last = 0;
    share(thread, &first, &last);
    if (method_.storage == Storage::kPanels) {
        const int64_t end = (last + TRIT_PANEL_ROWS - 1) / TRIT_PANEL_ROWS;
        multiply_panels(tier_, *w.packed, method_.few, method_.at_once, w.i, first / TRIT_PANEL_ROWS, end,
                        act.q(token), act.row_bytes(), act.scale(token), act.sum(token), m, scratch, out);
        return;
    }
    for (int64_t r = first; r < last; r += TRIT_PANEL_ROWS) {
        const int rows = static_cast<int>(std::min<int64_t>(TRIT_PANEL_ROWS, last - r));
        const uint8_t* codes = w.data + static_cast<size_t>(r) * w.row_bytes;
        auto* c = static_cast<int32_t*>(scratch);
        if (method_.storage == Storage::kRows) {
            multiply_rows(tier_, *w.encoding, shape_.k, codes, w.row_bytes, rows, act.q(token),
                          act.row_bytes(), m, c + m * TRIT_PANEL_ROWS, c);
        } else {
            tier_.i2_s(shape_.k, codes, w.row_bytes, rows, act.q(token), act.row_bytes(), m, c,
                       TRIT_PANEL_ROWS);
        }
        for (int j = 0; j < m; ++j) {
            tier_.finish(rows, c + j * TRIT_PANEL_ROWS, *act.sum(token + j), *act.scale(token + j), &w.scale,
                         0, out[j] + r);
        }
    }
}

}  // namespace trit
