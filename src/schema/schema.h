// SPDX-License-Identifier: MIT
/// JSON schemas as grammars: each keyword is held by the grammar or told. Text goes in and out, so that the
/// engine's JSON types stay its own.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace trit::schema {

struct Grammar {
    std::map<std::string, std::string> rules;  // GBNF bodies by name
    std::string root;                          // the rule of the whole value
    std::vector<std::string> warnings;         // constraints that are left to the model, each with its place

    std::string gbnf() const;
};

/// The grammar of the values that a schema allows. `document` is JSON text, in which "$ref" is looked up;
/// `part` the schema, JSON text of the document or of a part of it. Names of rules begin with `prefix`, but
/// for shared ones, "json-...". Throws std::invalid_argument, with the keyword and its place, for a schema
/// that is none, allows nothing, or is too large.
Grammar grammar_of(const std::string& document, const std::string& part, const std::string& prefix);

/// What a chat request asks of the answer's form, as JSON text of the members that are given of:
/// response_format, json_schema, tools, tool_choice, parallel_tool_calls. Returns JSON text of an object:
/// "warnings", constraints that are left to the model; "tools" and "tool_choice" ("auto", "none" or
/// "required") where a choice narrows them. `knows_tools`: whether the model's chat template describes tools.
/// Throws std::invalid_argument for what cannot be, and, with "strict": true, for a constraint that the
/// grammar cannot hold.
std::string checked_request(const std::string& request, bool knows_tools);

}  // namespace trit::schema
