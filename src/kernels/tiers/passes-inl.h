// SPDX-License-Identifier: MIT
/// Included by the panels of x86 tiers, inside the target region and the anonymous namespace of a tier.

/// All m tokens in passes of nearly the same size: 8 are 4 + 4 where at most 6 fit, not 6 + 2. passes[i]
/// takes `args`, then i + 1 tokens and where their sums go.
template <typename Pass, int kMost, typename... Args>
void in_passes(const Pass (&passes)[kMost], int m, const int8_t* q, size_t q_row_bytes, int32_t* c,
               Args... args) {
    const int count = (m + kMost - 1) / kMost;
    for (int t = 0; t < count; ++t) {
        const int from = m * t / count;
        passes[m * (t + 1) / count - from - 1](args..., q + static_cast<size_t>(from) * q_row_bytes,
                                               q_row_bytes, c + from * TRIT_PANEL_ROWS);
    }
}
