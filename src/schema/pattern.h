// SPDX-License-Identifier: MIT
/// Patterns of ECMA 262, as JSON Schema has them, as regular languages.
#pragma once

#include <stdexcept>
#include <string>

#include "schema/language.h"

namespace trit::schema {

/// A pattern that is no regular expression.
struct InvalidPattern : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// A pattern whose language is not regular, or that uses what is not read here.
struct UnsupportedPattern : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// The texts in which the pattern is found, at most `before` characters behind their start. Throws
/// InvalidPattern, UnsupportedPattern and TooLarge.
Language pattern_language(Languages* languages, const std::string& pattern, uint32_t before = kNoLimit);

}  // namespace trit::schema
