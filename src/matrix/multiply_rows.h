// SPDX-License-Identifier: MIT
/// Products of rows that stay in their file's encoding, for encodings that no kernel reads: a few inputs of
/// 64 rows at a time become a panel in a thread's own memory.
///
/// Every product unpacks its rows again. That is meant for small and seldom used tensors; packing at load is
/// the fast way.
#ifndef TRIT_MULTIPLY_ROWS_H
#define TRIT_MULTIPLY_ROWS_H

#include "matrix/encodings.h"
#include "trit.h"

namespace trit {

/// Bytes of `scratch`, a multiple of 64.
size_t multiply_rows_bytes(int m);

/// c[j][i] = sum over l of u[i][l] * q[j][l], exact like trit_panel_fn.
///
/// @param tier      has a panel kernel for 2 bits
/// @param k         inputs, a multiple of the encoding's block and of 32
/// @param rows      the first of `n` rows, row_bytes apart; n is 1 to TRIT_PANEL_ROWS
/// @param q         int8 [m, k]; TRIT_PANEL_OVERREAD bytes behind each row may be read
/// @param scratch   multiply_rows_bytes(m) bytes, aligned to 64
/// @param c         int32 [m, TRIT_PANEL_ROWS], written
void multiply_rows(const trit_tier& tier, const Encoding& encoding, int64_t k, const uint8_t* rows,
                   size_t row_bytes, int n, const int8_t* q, size_t q_row_bytes, int m, void* scratch,
                   int32_t* c);

}  // namespace trit

#endif  // TRIT_MULTIPLY_ROWS_H
