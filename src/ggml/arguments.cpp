// SPDX-License-Identifier: MIT
#include "ggml/arguments.h"

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "llama.h"

namespace trit::arguments {

namespace {

constexpr int kAuto = -1;                 // as many as there are CPUs, or as the server takes
constexpr int kMostLastTokens = 1 << 20;  // memory for all of them is taken at once

/// NaN is in no range.
void check_range(const char* flag, double value, double least, double most) {
    if (!(value >= least && value <= most)) {
        throw std::invalid_argument(
            string_format("argument %s: expected %.10g to %.10g, got %.10g", flag, least, most, value));
    }
}

void check_count(const char* flag, int value, size_t most) {
    if (value != kAuto) {
        check_range(flag, value, 1, static_cast<double>(most));
    }
}

}  // namespace

int whole_number(const std::string& text) {
    size_t end = 0;
    try {
        const int value = std::stoi(text, &end);
        if (end == text.size()) {
            return value;
        }
    } catch (const std::exception&) {
        // said below
    }
    throw std::invalid_argument("expected a whole number of 32 bits, got \"" + text + "\"");
}

float more_than_zero(const std::string& text) {
    const float value = std::stof(text);
    if (!(value > 0 && std::isfinite(value) && std::isfinite(1 / value))) {
        throw std::invalid_argument("expected a number of more than 0, got " + text);
    }
    return value;
}

bool read(const char* text, int64_t& value) {
    char* end = nullptr;
    errno = 0;
    value = std::strtoll(text, &end, 10);
    return errno == 0 && end != text && *end == '\0';
}

bool read(const char* text, double& value) {
    char* end = nullptr;
    value = std::strtod(text, &end);
    return std::isfinite(value) && end != text && *end == '\0';
}

std::string reason(const std::exception& error) {
    std::string said = string_strip(error.what());
    said = said.substr(0, said.find('\n'));
    said = said.rfind("error: ", 0) == 0 ? said.substr(7) : said;
    return said.rfind("sto", 0) == 0 ? "expected a number" : said;
}

void check_keys(const common_params& params) {
    if (params.api_keys.empty()) {
        throw std::invalid_argument("has no key in it; give one that nobody guesses");
    }
}

std::vector<common_sampler_type> all_found(std::vector<common_sampler_type> found, size_t n_names) {
    if (found.size() != n_names) {
        throw std::invalid_argument("names a sampler that is none; --help lists them");
    }
    return found;
}

void check_ranges(const common_params& params) {
    const auto& sampling = params.sampling;
    check_range("--temp", sampling.temp, 0, 1000);
    check_range("--top-k", sampling.top_k, 0, INT32_MAX);
    check_range("--top-p", sampling.top_p, 0, 1);
    check_range("--min-p", sampling.min_p, 0, 1);
    check_range("--repeat-penalty", sampling.penalty_repeat, 1e-6, 1000);
    check_range("--repeat-last-n", sampling.penalty_last_n, 0, kMostLastTokens);
    check_range("--dry-penalty-last-n", sampling.dry_penalty_last_n, -1, kMostLastTokens);
    check_range("--mirostat", sampling.mirostat, 0, 2);
    check_range("--n-predict", params.n_predict, -2, INT32_MAX);
    check_range("--ctx-size", params.n_ctx, 0, INT32_MAX);
    check_range("--batch-size", params.n_batch, 1, INT32_MAX);
    check_range("--ubatch-size", params.n_ubatch, 0, INT32_MAX);
    check_count("--parallel", params.n_parallel, llama_max_parallel_sequences());
    const auto& draft = params.speculative.draft;
    check_count("--threads", params.cpuparams.n_threads, GGML_MAX_N_THREADS);
    check_count("--threads-batch", params.cpuparams_batch.n_threads, GGML_MAX_N_THREADS);
    check_count("--threads-draft", draft.cpuparams.n_threads, GGML_MAX_N_THREADS);
    check_count("--threads-batch-draft", draft.cpuparams_batch.n_threads, GGML_MAX_N_THREADS);
    check_range("--threads-http", params.n_threads_http, -1, 1024);
    check_range("--grp-attn-n", params.grp_attn_n, 1, INT32_MAX);
    check_range("--grp-attn-w", params.grp_attn_w, 1, INT32_MAX);
    if (params.grp_attn_w % params.grp_attn_n != 0) {
        throw std::invalid_argument(
            string_format("argument --grp-attn-w: expected a multiple of --grp-attn-n, which is %d, got %d",
                          params.grp_attn_n, params.grp_attn_w));
    }
}

void refuse_samplers(const common_params_sampling& params, const std::exception& error) {
    const bool grammar = !common_grammar_value(params.grammar).empty();
    std::fprintf(stderr, "error: %s: %s\n",
                 grammar ? "argument --grammar or --json-schema" : "arguments of samplers",
                 reason(error).c_str());
    std::exit(2);
}

}  // namespace trit::arguments
