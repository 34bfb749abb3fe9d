// SPDX-License-Identifier: MIT
/// What is asked of the engine's arguments before a model is read: each function throws
/// std::invalid_argument with a sentence, which arg.cpp ends with exit code 2.
#pragma once

#include <cstdint>
#include <exception>
#include <string>
#include <vector>

#include "common.h"

namespace trit::arguments {

/// The whole text as a number; "5x" is none.
int whole_number(const std::string& text);
float more_than_zero(const std::string& text);

/// Of a flag whose values are numbers: the whole text is one, and in the flag's range. What is no number at
/// all is left to the flag, which may know a word. `flags`: its names; `hint`: how --help calls its value.
void check_number(const std::vector<const char*>& flags, const char* hint, const std::string& text);

/// The same for --override-kv, which has a refusal of its own: false.
bool read(const char* text, int64_t& value);
bool read(const char* text, double& value);

/// The first line of what was said; std::stof and its kin say only their own name.
std::string reason(const std::exception& error);

/// Without keys everyone would be answered.
void check_keys(const common_params& params);

/// The same names, if each is a sampler's; the engine leaves out others. No name at all: no samplers.
const std::vector<std::string>& known_samplers(const std::vector<std::string>& names);
const std::string& known_letters(const std::string& letters);

/// Numbers that abort later, take gigabytes, or that a sampler or batch cannot work with.
void check_ranges(const common_params& params);

/// The same for the numbers and lists of a request. Numbers of tokens beyond context and vocabulary mean all
/// of them, as buffers of that many tokens are allocated. `n_predict`: most tokens of the answer; -1: the
/// context.
void bound_request(common_params_sampling& sampling, int32_t n_vocab, int32_t n_ctx, int32_t n_predict);

/// Lists that are gone through for every token are short.
void check_words(const std::vector<std::string>& words, const char* name);

/// A sentence about samplers that cannot be made, and the end of the program.
[[noreturn]] void refuse_samplers(const common_params_sampling& params, const std::exception& error);

}  // namespace trit::arguments
