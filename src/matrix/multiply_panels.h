// SPDX-License-Identifier: MIT
/// Products with panels: by the tier's kernels, or by the look-up kernel that reads indices of tables.
#ifndef TRIT_MULTIPLY_PANELS_H
#define TRIT_MULTIPLY_PANELS_H

#include "matrix/lookup_choice.h"
#include "matrix/packed_matrix.h"
#include "trit.h"

namespace trit {

/// With so many tokens and more, panels of table indices are worth less than panels of 2 bits made of them.
constexpr int kLeastUnpacked = 6;

/// Rows of panels `first` to `last` (exclusive) of matrix `i` times m tokens.
///
/// @param few      of panels of table indices: the kernel that reads them
/// @param at_once  tokens that a kernel of the tier gets in one call, at most; 0: all
/// @param q        int8 [m, k] (q_row_bytes apart)
/// @param scale    float [m, groups] (one group if w.group() is 0): s of trit_quantize_fn
/// @param sum      int32 [m, groups]
/// @param scratch  multiply_panels_bytes(w.packing(), few, k, m) bytes, aligned to 64
/// @param out      out[j]: token j's results, float [n], of which these panels' rows are written
void multiply_panels(const trit_tier& tier, const PackedMatrix& w, const LookupChoice& few, int at_once,
                     int64_t i, int64_t first, int64_t last, const int8_t* q, size_t q_row_bytes,
                     const float* scale, const int32_t* sum, int m, void* scratch, float* const* out);
/// Enough for up to m tokens and any matrix of k inputs in this packing or, if its scales want that, in 2
/// bits.
size_t multiply_panels_bytes(trit_packing packing, const LookupChoice& few, int64_t k, int m);

/// One token's sums of weights -1, 0, +1 to results: rows of panels p ... p + count - 1, at out + 64 p.
///
/// @param sums  int32 [64 count]
/// @param out   float [w.n]
void finish_panels(const trit_tier& tier, const Panels& w, int64_t p, int count, const int32_t* sums,
                   float act_scale, float* out);

/// A thread's share of writing a stack of `count` matrices of table indices as one of 2 bits, for all
/// threads' use.
///
/// @param few     the kernel that reads them
/// @param memory  PackedMatrix::two_bits_bytes(shape) bytes, aligned to 64, for PackedMatrix's constructor
void unpack_panels(const PackedMatrix& w, const trit_lookup_kernel& few, int64_t count, int thread,
                   int threads, void* memory);

}  // namespace trit

#endif  // TRIT_MULTIPLY_PANELS_H
