// SPDX-License-Identifier: MIT
/// What a schema says, its references followed and its parts under allOf put together: one list of
/// constraints, and what is left to choose.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "schema/values.h"

namespace trit::schema {

enum Type : unsigned {
    kNull = 1,
    kBoolean = 2,
    kInteger = 4,
    kFractional = 8,  // a number that is not an integer
    kString = 16,
    kArray = 32,
    kObject = 64,
    kNumber = kInteger | kFractional,
    kAnyType = 127,
};

/// A part of the document, or a schema that was made of such parts.
using SchemaPart = const Json*;

/// A constraint that a grammar does not hold, and the types of values that it concerns.
struct Unheld {
    unsigned types;
    std::string what;
};

struct Choice {
    std::string keyword;  // anyOf or oneOf
    std::string path;
    std::vector<SchemaPart> parts;
};

/// Numbers are the widest that a keyword can have where it does not stand.
struct Constraints {
    std::string path;
    bool impossible = false;
    std::string why;  // it is impossible; empty: because it says so
    unsigned types = kAnyType;
    unsigned mentioned = 0;  // types whose keywords stand there
    bool bare = true;        // nothing but `choices` constrains
    std::vector<SchemaPart> parts;
    std::vector<Choice> choices;
    std::unique_ptr<std::vector<Json>> values;  // enum and const; null: any

    NumberLimits numbers;
    size_t least_length = 0;
    size_t most_length = SIZE_MAX;
    std::set<std::string> patterns;
    std::set<std::string> formats;
    std::set<std::string> not_texts;

    size_t least_items = 0;
    size_t most_items = SIZE_MAX;
    bool counts_items = false;  // minItems stands there
    bool unique_items = false;
    std::vector<SchemaPart> prefix;
    SchemaPart items = nullptr;  // of all behind the prefix; null: any

    size_t least_properties = 0;
    size_t most_properties = SIZE_MAX;
    bool lists_properties = false;  // properties or patternProperties stands there, even without a name
    std::vector<std::pair<std::string, SchemaPart>> properties;  // as they are written
    std::set<std::string> required;
    std::vector<std::string> required_order;
    std::map<std::string, SchemaPart> pattern_properties;
    SchemaPart other_properties = nullptr;  // null: not said
    std::vector<SchemaPart> names;

    std::vector<Unheld> unheld;

    Constraints() = default;
    Constraints(const Constraints& other);
    Constraints(Constraints&&) = default;
    Constraints& operator=(Constraints&&) = default;
};

class Merger {
 public:
    Merger(Languages* languages, const Json& document) : languages_(*languages), document_(document) {}

    /// Narrow constraints by a schema.
    void narrow(Constraints* all, SchemaPart schema, const std::string& path);
    /// The schema that allows what all of them allow.
    SchemaPart all_of(const std::vector<SchemaPart>& parts);
    SchemaPart made(Json schema);
    /// All of what constraints say about a property of this name; null: nothing.
    SchemaPart property(const Constraints& all, const std::string& name);
    bool matches(const std::string& pattern, const std::string& text);

 private:
    static constexpr size_t kMaxMade = 8u << 20;  // bytes

    Languages& languages_;
    const Json& document_;
    std::map<std::string, std::unique_ptr<Json>> made_;
    size_t made_bytes_ = 0;
    std::set<SchemaPart> following_;

    void narrow_type(Constraints* all, const Json& schema);
    void narrow_values(Constraints* all, const Json& schema);
    void narrow_not(Constraints* all, const Json& schema, const std::string& path);
    void narrow_number(Constraints* all, const Json& schema);
    void narrow_string(Constraints* all, const Json& schema, const std::string& path);
    void narrow_array(Constraints* all, const Json& schema, const std::string& path);
    void narrow_object(Constraints* all, const Json& schema, const std::string& path);
    void note(Constraints* all, const Json& schema, const std::string& path);
};

}  // namespace trit::schema
