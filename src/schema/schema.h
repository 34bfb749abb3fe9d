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
    std::vector<std::string> notes;            // where it allows less than the schema, each with its place

    std::string gbnf() const;
};

/// The grammar of the values that a schema allows. `document` is JSON text, in which "$ref" is looked up;
/// `part` the schema, JSON text of the document or of a part of it. Names of rules begin with `prefix`, but
/// for shared ones, "json-...". With `closing` a text stands as it is, without quotes, and values end with
/// `closing`, as in calls that are written like XML. Throws std::invalid_argument, with the keyword and its
/// place, for a schema that is none, allows nothing, or is too large.
Grammar grammar_of(const std::string& document, const std::string& part, const std::string& prefix,
                   const std::string& closing = "");

/// The ways to ask for an answer: by messages, or by a prompt.
enum Route : unsigned { kChat = 1, kText = 2 };

/// What comes of a request, JSON text of its object without messages and prompt: JSON text of the members
/// that are to be set, and "warnings", what is left to the model or has no meaning here. `knows_tools`:
/// whether the model's chat template describes tools. Throws std::invalid_argument for what cannot be, and,
/// with "strict": true, for a constraint that the grammar cannot hold.
std::string checked_request(const std::string& request, Route route, bool knows_tools);

}  // namespace trit::schema
