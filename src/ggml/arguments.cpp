// SPDX-License-Identifier: MIT
#include "ggml/arguments.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <set>
#include <stdexcept>

#include "llama.h"
#include "sampling.h"

namespace trit::arguments {

namespace {

constexpr int kAuto = -1;                 // as many as there are CPUs, or as the server takes
constexpr int kMostLastTokens = 1 << 20;  // memory for all of them is taken at once
constexpr double kMost = 1000;

struct Range {
    const char* flag;
    double least;
    double most;
};

// Of flags whose numbers may have a fraction. -1 often means: as the model has it, or off.
constexpr Range kRanges[] = {
    {"--seed", -1, UINT32_MAX},
    {"--temp", 0, kMost},
    {"--top-p", 0, 1},
    {"--min-p", 0, 1},
    {"--top-nsigma", -1, kMost},
    {"--xtc-probability", 0, 1},
    {"--xtc-threshold", 0, 1},
    {"--typical", 0, 1},
    {"--repeat-penalty", 1e-6, kMost},
    {"--presence-penalty", -kMost, kMost},
    {"--frequency-penalty", -kMost, kMost},
    {"--dry-multiplier", 0, kMost},
    {"--dry-base", 1, kMost},
    {"--adaptive-target", -1, 1},
    {"--adaptive-decay", 0, 0.99},
    {"--dynatemp-range", 0, kMost},
    {"--dynatemp-exp", 0, kMost},
    {"--mirostat-lr", 0, kMost},
    {"--mirostat-ent", 0, kMost},
    {"--rope-freq-base", 0, 1e12},
    {"--rope-freq-scale", 0, kMost},
    {"--yarn-ext-factor", -1, 1},
    {"--yarn-attn-factor", -1, kMost},
    {"--yarn-beta-slow", -1, kMost},
    {"--yarn-beta-fast", -1, kMost},
    {"--slot-prompt-similarity", 0, 1},
    {"--spec-draft-p-split", 0, 1},
    {"--spec-draft-p-min", 0, 1},
};

// What --help calls a value that is one number.
constexpr const char* kNumbers[] = {"N", "P", "F", "SEED", "SIMILARITY"};

/// NaN is in no range.
void check_range(const char* flag, double value, double least, double most) {
    if (!(value >= least && value <= most)) {
        throw std::invalid_argument(
            string_format("argument %s: expected %.10g to %.10g, got %.10g", flag, least, most, value));
    }
}

template <typename Take>
void each_sampler(Take take) {
    for (int number = COMMON_SAMPLER_TYPE_NONE + 1; number <= COMMON_SAMPLER_TYPE_ADAPTIVE_P; ++number) {
        const auto type = static_cast<common_sampler_type>(number);
        if (const std::string name = common_sampler_type_to_str(type); !name.empty()) {
            take(name, common_sampler_type_to_chr(type));
        }
    }
}

/// In all the ways in which the engine knows them: top_k, top-k, topk.
std::set<std::string> sampler_names() {
    std::set<std::string> names = {"nucleus", "temp", "typ"};
    each_sampler([&](const std::string& name, char) {
        std::string dashed = name;
        std::replace(dashed.begin(), dashed.end(), '_', '-');
        std::string joined = name;
        joined.erase(std::remove(joined.begin(), joined.end(), '_'), joined.end());
        names.insert({name, dashed, joined});
    });
    return names;
}

std::string sampler_letters() {
    std::string letters;
    each_sampler([&](const std::string&, char letter) { letters += letter; });
    return letters;
}

[[noreturn]] void refuse_sampler(const std::string& word) {
    std::string known;
    each_sampler([&](const std::string& name, char letter) {
        known += (known.empty() ? "" : ", ") + name + " (" + letter + ")";
    });
    throw std::invalid_argument("there is no sampler \"" + word + "\", but " + known);
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

void check_number(const std::vector<const char*>& flags, const char* hint, const std::string& text) {
    const auto is_hint = [&](const char* one) { return hint != nullptr && std::strcmp(hint, one) == 0; };
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (std::none_of(std::begin(kNumbers), std::end(kNumbers), is_hint) || end == text.c_str()) {
        return;
    }
    if (*end != '\0') {
        throw std::invalid_argument("expected a number, got \"" + text + "\"");
    }
    for (const Range& range : kRanges) {
        const auto is_flag = [&](const char* flag) { return std::strcmp(flag, range.flag) == 0; };
        if (std::any_of(flags.begin(), flags.end(), is_flag) &&
            !(value >= range.least && value <= range.most)) {
            throw std::invalid_argument(
                string_format("expected %.10g to %.10g, got %s", range.least, range.most, text.c_str()));
        }
    }
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

const std::vector<std::string>& known_samplers(const std::vector<std::string>& names) {
    const std::set<std::string> known = sampler_names();
    for (const std::string& name : names) {
        if (known.count(name) == 0 && names != std::vector<std::string>{""}) {
            refuse_sampler(name);
        }
    }
    return names;
}

const std::string& known_letters(const std::string& letters) {
    for (const char letter : letters) {
        if (sampler_letters().find(letter) == std::string::npos) {
            refuse_sampler(std::string(1, letter));
        }
    }
    return letters;
}

void check_ranges(const common_params& params) {
    const auto& sampling = params.sampling;
    check_range("--top-k", sampling.top_k, 0, INT32_MAX);
    check_range("--repeat-last-n", sampling.penalty_last_n, 0, kMostLastTokens);
    check_range("--dry-penalty-last-n", sampling.dry_penalty_last_n, -1, kMostLastTokens);
    check_range("--mirostat", sampling.mirostat, 0, 2);
    check_range("--dry-allowed-length", sampling.dry_allowed_length, 0, INT32_MAX);
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
