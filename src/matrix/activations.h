// SPDX-License-Identifier: MIT
/// Quantised activations in the threads' shared work memory.
#ifndef TRIT_ACTIVATIONS_H
#define TRIT_ACTIVATIONS_H

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/align.h"
#include "trit.h"

namespace trit {

/// Groups of inputs that share a scale; the last may be smaller. group 0: all k.
inline int64_t groups_of(int64_t k, int64_t group) { return group != 0 ? (k + group - 1) / group : 1; }

/// `rows` tokens: int8 [rows, k] (row_bytes apart), and for each token and group of inputs its scale and sum.
class Activations {
 public:
    /// group: inputs that share a scale; 0: all k of a token.
    Activations(void* memory, int64_t rows, int64_t k, int64_t group)
        : k_(k), group_(group != 0 ? group : k), row_bytes_(row_bytes(k)) {
        q_ = reinterpret_cast<int8_t*>(align_up(reinterpret_cast<size_t>(memory)));
        const size_t scales = static_cast<size_t>(rows * groups());
        scale_ = reinterpret_cast<float*>(q_ + static_cast<size_t>(rows) * row_bytes_);
        sum_ = reinterpret_cast<int32_t*>(scale_ + scales);
        end_ = reinterpret_cast<void*>(align_up(reinterpret_cast<size_t>(sum_ + scales)));
    }

    /// What the constructor may take at `memory`.
    static size_t bytes(int64_t rows, int64_t k, int64_t group) {
        const auto groups = static_cast<size_t>(groups_of(k, group));
        return 2 * kCacheLine +
               static_cast<size_t>(rows) * (row_bytes(k) + groups * (sizeof(float) + sizeof(int32_t)));
    }

    /// x: float [k], to token `row`.
    void quantize(const trit_tier& tier, const float* x, int64_t row) const {
        int8_t* to = q_ + static_cast<size_t>(row) * row_bytes_;
        for (int64_t g = 0; g < groups(); ++g) {
            tier.quantize(std::min(group_, k_ - g * group_), x + g * group_, to + g * group_,
                          scale_ + row * groups() + g, sum_ + row * groups() + g);
        }
    }

    int64_t groups() const { return groups_of(k_, group_); }
    const int8_t* q(int64_t row) const { return q_ + static_cast<size_t>(row) * row_bytes_; }
    size_t row_bytes() const { return row_bytes_; }
    const float* scale(int64_t row) const { return scale_ + row * groups(); }
    const int32_t* sum(int64_t row) const { return sum_ + row * groups(); }
    /// The first byte behind everything, aligned to a cache line.
    void* end() const { return end_; }

 private:
    /// Kernels may read behind a row. (That also keeps tokens of 4096 inputs from falling into one cache
    /// set.)
    static size_t row_bytes(int64_t k) { return align_up(static_cast<size_t>(k) + TRIT_PANEL_OVERREAD); }

    int64_t k_;
    int64_t group_;
    size_t row_bytes_;
    int8_t* q_;
    float* scale_;
    int32_t* sum_;
    void* end_;
};

}  // namespace trit

#endif  // TRIT_ACTIVATIONS_H
