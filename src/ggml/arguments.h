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

/// The same for --override-kv, which has a refusal of its own: false.
bool read(const char* text, int64_t& value);
bool read(const char* text, double& value);

/// The first line of what was said; std::stof and its kin say only their own name.
std::string reason(const std::exception& error);

/// Without keys everyone would be answered.
void check_keys(const common_params& params);

/// The samplers that were found, all of those that were named.
std::vector<common_sampler_type> all_found(std::vector<common_sampler_type> found, size_t n_names);

/// Numbers that abort later, take gigabytes, or that a sampler or batch cannot work with.
void check_ranges(const common_params& params);

/// A sentence about samplers that cannot be made, and the end of the program.
[[noreturn]] void refuse_samplers(const common_params_sampling& params, const std::exception& error);

}  // namespace trit::arguments
