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
    if (PackedMatrix::may_have_tables(method.packing)) {
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

PanelShare::PanelShare(int64_t panels, int chunks, int thread, int threads) {
    const int64_t units = panels * chunks;
    const int64_t start = units * thread / threads;
    const int64_t end = units * (thread + 1) / threads;
    first = start / chunks;
    first_chunk = static_cast<int>(start % chunks);
    last = end / chunks;
    last_chunk = static_cast<int>(end % chunks);
}

int64_t Matmul::work(int thread, int64_t m) const {
    int64_t rows_and_tokens = 0;
    each_block(m, [&](int64_t, int count) {
        if (method_.storage != Storage::kPanels) {
            int64_t first = 0;
            int64_t last = 0;
            share(thread, &first, &last);
            rows_and_tokens += (last - first) * count;
            return;
        }
        const int chunks = chunks_of(count);
        const PanelShare own((shape_.n + TRIT_PANEL_ROWS - 1) / TRIT_PANEL_ROWS, chunks, thread, threads_);
        rows_and_tokens +=
            TRIT_PANEL_ROWS * ((own.last - own.first) * count + count * own.last_chunk / chunks -
                               count * own.first_chunk / chunks);
    });
    return rows_and_tokens * shape_.k;
}

void Matmul::unpack(const PackedMatrix& w, int thread, void* shared) const {
    unpack_panels(w, *method_.few.kernel, shape_.count, thread, threads_, shared);
}

void Matmul::multiply(const Weights& w, const Activations& act, int64_t token, int m, int thread,
                      void* scratch, float* const* out) const {
    if (method_.storage == Storage::kPanels) {
        const int chunks = chunks_of(m);
        const PanelShare own(w.packed->panels(), chunks, thread, threads_);
        const auto some = [&](int64_t panel, int64_t end, int chunk, int end_chunk) {
            const int from = m * chunk / chunks;
            const int count = m * end_chunk / chunks - from;
            if (panel < end && count > 0) {
                multiply_panels(tier_, *w.packed, method_.few, method_.at_once, w.i, panel, end,
                                act.q(token + from), act.row_bytes(), act.scale(token + from),
                                act.sum(token + from), count, scratch, out + from);
            }
        };
        if (own.first == own.last) {
            some(own.first, own.first + 1, own.first_chunk, own.last_chunk);
            return;
        }
        const int64_t whole = own.first + (own.first_chunk > 0 ? 1 : 0);
        some(own.first, whole, own.first_chunk, chunks);
        some(whole, own.last, 0, chunks);
        some(own.last, own.last + 1, 0, own.last_chunk);
        return;
    }
    int64_t first = 0;
    int64_t last = 0;
    share(thread, &first, &last);
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
