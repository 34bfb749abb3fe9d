// SPDX-License-Identifier: MIT
/// The fields of a request for an answer.
#pragma once

#include <string>
#include <vector>

#include "schema/schema.h"
#include "schema/values.h"

namespace trit::schema {

/// Refuse what a request asks for and would not get; return what else nothing comes of, a sentence each.
/// Throws std::invalid_argument.
std::vector<std::string> check_fields(const Json& request, Route route);

}  // namespace trit::schema
