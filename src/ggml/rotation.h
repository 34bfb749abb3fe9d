// SPDX-License-Identifier: MIT
/// Models whose weights are stored in a rotated basis (`prism.hadamard.*` keys: Ternary-Bonsai-2).
///
/// A folded matrix W' = W diag(s) H meets x' = H (s * x), block by block; H is the normalised Walsh-Hadamard
/// matrix in Sylvester's order, s a vector of signs for each width. A folded table's rows come back as h = s
/// * (H z).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

struct ggml_context;
struct ggml_tensor;
struct gguf_context;

namespace trit {

/// What a file's keys say, and the tensors that graphs need for it.
class Rotation {
 public:
    /// Rotated inputs of one graph by the input: several matrices share one.
    using Inputs = std::unordered_map<const ggml_tensor*, ggml_tensor*>;

    /// Null if the file has no such keys, or if `wrong` says what is the matter with them.
    static std::shared_ptr<Rotation> read(const gguf_context* file, std::string& wrong);

    /// To be asked about every tensor [width, ...] that the model may have; what does not fit, or "".
    std::string misfit(const std::string& name, int64_t width);

    /// A tensor that is to be rotated and that the model has no use for, or "".
    std::string unused() const { return unseen_.empty() ? "" : *unseen_.begin(); }

    /// What to multiply a weight with in place of x [width, ...]: x itself, unless the weight is folded.
    ggml_tensor* input(ggml_context* graph, const ggml_tensor* weight, ggml_tensor* x, Inputs& shared) const;

    /// Rows of a table of embeddings as they are without rotation.
    ggml_tensor* rows(ggml_context* graph, const ggml_tensor* table, ggml_tensor* x) const;

 private:
    bool allocate(const std::vector<int64_t>& widths, const std::vector<int8_t>& signs);
    ggml_tensor* transform(ggml_context* graph, ggml_tensor* x) const;
    ggml_tensor* flip(ggml_context* graph, ggml_tensor* x) const;

    int64_t block_ = 0;
    std::unordered_set<std::string> folded_, tables_, unseen_;
    // Key heads, value heads of each, size of a head, of layers whose output projection has them side by
    // side.
    std::array<int64_t, 3> heads_{};
    std::unordered_map<int64_t, ggml_tensor*> signs_;
    ggml_tensor* matrix_ = nullptr;
    std::shared_ptr<void> context_, buffer_;
};

}  // namespace trit
