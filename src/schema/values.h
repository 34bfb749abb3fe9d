// SPDX-License-Identifier: MIT
/// Schemas as they are written: whether they are well formed, and which values they allow.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "schema/language.h"
#include "schema/number.h"

namespace trit::schema {

using Json = nlohmann::ordered_json;

/// A schema that is none, or that allows nothing.
[[noreturn]] void fail(const std::string& what);

/// Text without control characters: names and patterns of a schema may have any.
std::string one_line(std::string text);
/// The beginning of a value as JSON text.
std::string shown(const Json& value);

/// A member of an object, or null.
const Json* member(const Json& object, const char* name);
/// The same, or null where it is null.
const Json* given(const Json& object, const char* name);
Decimal decimal(const Json& number);
/// A count as a keyword has it, at most `most`.
size_t count(const Json& schema, const char* keyword, size_t otherwise);

/// The bounds and divisors of a schema, with those of draft 4.
NumberLimits number_limits(const Json& schema);

/// The part of a document to which a reference leads.
const Json& referred(const Json& document, const std::string& ref, const std::string& path);

/// Throws std::invalid_argument for a keyword with a value of the wrong type, at the schema or below it, for
/// bounds that exclude each other, and for too many or too deep parts.
void check_schema(const Json& document, const Json& schema);

/// The pattern of a format, or null for one that is not known; "" for one that constrains nothing.
const char* format_pattern(const std::string& format);

/// Whether a schema allows a value. Patterns that are not read allow all.
bool allows(Languages* languages, const Json& document, const Json& schema, const Json& value);

}  // namespace trit::schema
