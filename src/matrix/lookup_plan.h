// SPDX-License-Identifier: MIT
/// How threads share products that go through a look-up kernel.
#ifndef TRIT_LOOKUP_PLAN_H
#define TRIT_LOOKUP_PLAN_H

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>

#include "kernels/align.h"
#include "matrix/activations.h"
#include "matrix/lookup_choice.h"
#include "matrix/multiply_panels.h"
#include "trit.h"

namespace trit {

/// The first `tokens()` of m tokens times all rows of a matrix.
///
/// Building tables costs as much as about 150 rows, whatever a thread's number of rows: so threads take
/// different tokens first, and share rows only where there are not enough blocks of tokens.
class LookupPlan {
 public:
    LookupPlan(const LookupChoice& choice, int64_t m, int64_t n, int threads)
        : kernel_(choice.kernel),
          panels_of_call_(choice.panels),
          panels_((n + TRIT_PANEL_ROWS - 1) / TRIT_PANEL_ROWS) {
        if (kernel_ == nullptr || m < choice.least_tokens) {
            return;
        }
        const int64_t rest = m % kernel_->tokens;
        const int64_t tokens = rest >= choice.least_tokens ? m : m - rest;
        const int64_t blocks = (tokens + kernel_->tokens - 1) / kernel_->tokens;
        parts_ = threads / std::gcd(blocks, static_cast<int64_t>(threads));
        tokens_ = panels_ / parts_ >= kLeastPanels ? tokens : 0;
    }

    int64_t tokens() const { return tokens_; }
    /// Threads that share a block of tokens, by its rows.
    int64_t parts() const { return parts_; }

    /// What `run` needs for each thread.
    size_t scratch_bytes() const { return tokens_ == 0 ? 0 : align_up(kernel_->work_bytes) + sums_bytes(); }

    /// A thread's share.
    ///
    /// @param token    row of act that holds the first token
    /// @param scratch  scratch_bytes() bytes, aligned to 64
    /// @param row_of   row_of(j): where token j's results go, float [n]
    template <typename RowOf>
    void run(const trit_tier& tier, const Panels& w, const Activations& act, int64_t token, int thread,
             int threads, void* scratch, const RowOf& row_of) const {
        auto* sums = reinterpret_cast<int32_t*>(static_cast<char*>(scratch) + align_up(kernel_->work_bytes));
        const int64_t units = (tokens_ + kernel_->tokens - 1) / kernel_->tokens * parts_;
        for (int64_t unit = thread; unit < units; unit += threads) {
            const int64_t first = unit / parts_ * kernel_->tokens;
            const int m = static_cast<int>(std::min<int64_t>(kernel_->tokens, tokens_ - first));
            const int64_t part = unit % parts_;
            const int64_t end = panels_ * (part + 1) / parts_;
            for (int64_t p = panels_ * part / parts_; p < end; p += panels_of_call_) {
                const int count = static_cast<int>(std::min<int64_t>(panels_of_call_, end - p));
                kernel_->multiply(w.k, w.data + static_cast<size_t>(p) * w.panel_bytes, w.panel_bytes, count,
                                  act.q(token + first), act.row_bytes(), m, scratch, sums, stride());
                for (int j = 0; j < m; ++j) {
                    finish_panels(tier, w, p, count, sums + static_cast<size_t>(j) * stride(),
                                  *act.scale(token + first + j), row_of(first + j));
                }
            }
        }
    }

 private:
    static constexpr int64_t kLeastPanels = 6;

    /// Room for a whole call even where fewer panels are left.
    size_t stride() const { return static_cast<size_t>(panels_of_call_) * TRIT_PANEL_ROWS; }
    size_t sums_bytes() const { return stride() * static_cast<size_t>(kernel_->tokens) * sizeof(int32_t); }

    const trit_lookup_kernel* kernel_;
    int64_t panels_of_call_;
    int64_t panels_;
    int64_t parts_ = 1;
    int64_t tokens_ = 0;
};

}  // namespace trit

#endif  // TRIT_LOOKUP_PLAN_H
