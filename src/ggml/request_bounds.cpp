// SPDX-License-Identifier: MIT
/// The numbers and lists of a request to the server, in front of what allocates by them.
#include <algorithm>
#include <stdexcept>

#include "ggml/arguments.h"

namespace trit::arguments {
namespace {

constexpr size_t kMaxWords = 128;
constexpr size_t kMaxWordBytes = 1 << 14;  // in sum
// Probabilities of one answer, each about half a kilobyte, unless it is OpenAI's limit of 20 per token.
constexpr int64_t kMaxProbabilities = 1 << 17;
constexpr int kOpenaiProbabilities = 20;

void check_size(size_t size, size_t most, const char* name) {
    if (size > most) {
        throw std::invalid_argument(
            string_format("Field '%s': at most %zu elements are taken, but got %zu", name, most, size));
    }
}

}  // namespace

void check_words(const std::vector<std::string>& words, const char* name) {
    size_t n_bytes = 0;
    for (const std::string& word : words) {
        n_bytes += word.size();
    }
    if (words.size() > kMaxWords || n_bytes > kMaxWordBytes) {
        throw std::invalid_argument(
            string_format("Field '%s': at most %zu elements and %zu bytes are taken, but got %zu and %zu",
                          name, kMaxWords, kMaxWordBytes, words.size(), n_bytes));
    }
}

void bound_request(common_params_sampling& sampling, int32_t n_vocab, int32_t n_ctx, int32_t n_predict) {
    sampling.penalty_last_n = std::min(sampling.penalty_last_n, n_ctx);
    sampling.dry_penalty_last_n = std::min(sampling.dry_penalty_last_n, n_ctx);
    sampling.n_prev = std::min(sampling.n_prev, n_ctx);
    sampling.top_k = std::min(sampling.top_k, n_vocab);
    sampling.min_keep = std::min(sampling.min_keep, n_vocab);
    sampling.n_probs = std::clamp(sampling.n_probs, 0, n_vocab);

    const int64_t n_tokens = n_predict < 0 ? n_ctx : std::min(n_predict, n_ctx);
    const int64_t most = std::max<int64_t>(n_vocab, kMaxProbabilities);
    if (sampling.n_probs > kOpenaiProbabilities && sampling.n_probs * n_tokens > most) {
        throw std::invalid_argument(string_format(
            "Field 'n_probs': %d probabilities for each of %lld tokens are more than %lld; ask for "
            "fewer of either",
            sampling.n_probs, static_cast<long long>(n_tokens), static_cast<long long>(most)));
    }
    check_size(sampling.logit_bias.size(), 2 * static_cast<size_t>(n_vocab), "logit_bias");
    check_size(sampling.samplers.size(), kMaxWords, "samplers");
    check_size(sampling.grammar_triggers.size(), kMaxWords, "grammar_triggers");
    check_words(sampling.dry_sequence_breakers, "dry_sequence_breakers");
    if (sampling.grammar_lazy && sampling.grammar_triggers.empty()) {
        throw std::invalid_argument(
            "Field 'grammar_lazy': nothing in 'grammar_triggers' would ever start the grammar");
    }
}

}  // namespace trit::arguments
