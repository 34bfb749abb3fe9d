// SPDX-License-Identifier: MIT
/// In-place i2_s, one row after the other. Included inside the target region and the anonymous namespace of a
/// tier, which defines before:
///
///     row_by_tokens<M>(blocks, row, q, q_row_bytes, c, c_stride)     one row against M tokens

constexpr int kInPlaceTokens = 4;

void i2_s(int64_t k, const uint8_t* w, size_t w_row_bytes, int n, const int8_t* q, size_t q_row_bytes, int m,
          int32_t* c, size_t c_stride) {
    const int64_t blocks = k / TRIT_I2_S_BLOCK;
    for (int i = 0; i < n; ++i) {
        const uint8_t* row = w + static_cast<size_t>(i) * w_row_bytes;
        int j = 0;
        for (; j + kInPlaceTokens <= m; j += kInPlaceTokens) {
            row_by_tokens<kInPlaceTokens>(blocks, row, q + static_cast<size_t>(j) * q_row_bytes, q_row_bytes,
                                          c + static_cast<size_t>(j) * c_stride + i, c_stride);
        }
        for (; j < m; ++j) {
            row_by_tokens<1>(blocks, row, q + static_cast<size_t>(j) * q_row_bytes, q_row_bytes,
                             c + static_cast<size_t>(j) * c_stride + i, c_stride);
        }
    }
}
