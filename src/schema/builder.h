// SPDX-License-Identifier: MIT
/// From constraints to the rules of a grammar.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "schema/constraints.h"
#include "schema/schema.h"

namespace trit::schema {

/// The name of a rule, or "" where nothing is allowed.
using Rule = std::string;

class Builder {
 public:
    /// `closing`: what ends a value whose text stands as it is; "": texts have quotes.
    Builder(const Json& document, std::string prefix, std::string closing);

    Grammar build(const Json& schema);

 private:
    const Json& document_;
    std::string prefix_;
    std::string closing_;
    Languages languages_;
    Merger merger_;
    Grammar out_;
    size_t bytes_ = 0;
    size_t copied_ = 0;  // states that stand before matches
    size_t number_ = 0;
    size_t built_ = 0;
    int level_ = 0;  // of containers around what is being built

    struct Known {
        Rule rule;
        int level;  // where it was begun
        bool done;
    };
    std::map<std::pair<SchemaPart, bool>, Known> known_;  // by whether texts stand as they are
    std::set<std::string> warned_;
    std::map<std::string, Rule> classes_;  // of characters, by their bodies

    // builder.cpp
    Rule add(const std::string& body);
    void set(const Rule& name, const std::string& body);
    Rule shared(const std::string& name);
    void warn(const std::string& what);
    /// Whether a text stands as it is: only outside of all containers.
    bool bare() const { return !closing_.empty() && level_ == 0; }
    /// The bare texts that something can end; nothing else is in them that would.
    Language unclosed();
    Rule any_value();
    std::string literal(const Json& value);
    std::string quoted_text(const std::string& text);
    std::string one_of(const std::string* begin, const std::string* end, size_t at);
    /// A rule that repeats one, with a comma between where `separated`.
    std::string repetition(const std::string& item, size_t least, size_t most, const std::string& what);
    Rule rule_of(SchemaPart schema, const std::string& path);
    Rule rule_of(Constraints* all);
    Rule rule_of_type(Constraints* all, unsigned type);
    Rule choice(const Constraints& all);
    void warn_overlap(const Choice& choice);
    Rule listed(Constraints* all);
    void take_types(Constraints* all);

    // scalars.cpp
    Rule number(Constraints* all, bool integer);
    Rule string(Constraints* all);
    /// The rule of the texts of a language, between quotes; "" without any.
    Rule quoted(const Automaton& automaton);
    /// The same, without quotes where texts are bare.
    Rule text(const Automaton& automaton);
    std::string characters(const Ranges& ranges, const std::string& next, bool escaped);
    Rule rules_of(const Automaton& automaton, bool escaped, const std::string& end);
    Language text_language(Constraints* all, std::vector<std::string>* held, Language* soon = nullptr,
                           std::vector<std::string>* loose = nullptr);

    // containers.cpp
    Rule array(Constraints* all);
    Rule distinct_items(Constraints* all, const std::vector<Json>& values);
    bool finite_values(SchemaPart schema, const std::string& path, std::vector<Json>* values);
    Rule object(Constraints* all);
    std::vector<std::string> wildcards(Constraints* all, const std::vector<std::string>& known);
};

}  // namespace trit::schema
