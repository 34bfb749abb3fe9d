// SPDX-License-Identifier: MIT
#include "schema/constraints.h"

#include <algorithm>
#include <stdexcept>

#include "schema/pattern.h"

namespace trit::schema {
namespace {

unsigned type_of(const std::string& name) {
    return name == "null"      ? kNull
           : name == "boolean" ? kBoolean
           : name == "integer" ? kInteger
           : name == "number"  ? kNumber
           : name == "string"  ? kString
           : name == "array"   ? kArray
                               : kObject;
}

/// Keywords, and the types of values that they concern. Others say nothing about a value.
constexpr std::pair<const char*, unsigned> kKeywords[] = {
    {"maximum", kNumber},
    {"minimum", kNumber},
    {"exclusiveMaximum", kNumber},
    {"exclusiveMinimum", kNumber},
    {"multipleOf", kNumber},
    {"maxLength", kString},
    {"minLength", kString},
    {"pattern", kString},
    {"format", kString},
    {"items", kArray},
    {"prefixItems", kArray},
    {"additionalItems", kArray},
    {"unevaluatedItems", kArray},
    {"contains", kArray},
    {"uniqueItems", kArray},
    {"maxItems", kArray},
    {"minItems", kArray},
    {"properties", kObject},
    {"required", kObject},
    {"additionalProperties", kObject},
    {"unevaluatedProperties", kObject},
    {"patternProperties", kObject},
    {"propertyNames", kObject},
    {"minProperties", kObject},
    {"maxProperties", kObject},
};

/// Keywords that a grammar does not hold.
constexpr std::pair<const char*, unsigned> kUnheld[] = {
    {"$dynamicRef", kAnyType},     {"$recursiveRef", kAnyType},   {"if", kAnyType},
    {"extends", kAnyType},         {"disallow", kAnyType},        {"divisibleBy", kNumber},
    {"contentEncoding", kString},  {"contentMediaType", kString}, {"contentSchema", kString},
    {"contains", kArray},          {"dependencies", kObject},     {"dependentRequired", kObject},
    {"dependentSchemas", kObject},
};

/// Keywords of any type of value that are held.
constexpr const char* kApplied[] = {"$ref", "allOf", "anyOf", "const", "enum", "not", "oneOf", "type"};

bool is_true(SchemaPart part) {
    return part == nullptr || (part->is_boolean() ? part->get<bool>() : part->empty());
}

}  // namespace

Constraints::Constraints(const Constraints& other)
    : path(other.path),
      impossible(other.impossible),
      why(other.why),
      types(other.types),
      mentioned(other.mentioned),
      bare(other.bare),
      parts(other.parts),
      choices(other.choices),
      values(other.values ? std::make_unique<std::vector<Json>>(*other.values) : nullptr),
      numbers(other.numbers),
      least_length(other.least_length),
      most_length(other.most_length),
      patterns(other.patterns),
      formats(other.formats),
      not_texts(other.not_texts),
      least_items(other.least_items),
      most_items(other.most_items),
      counts_items(other.counts_items),
      unique_items(other.unique_items),
      prefix(other.prefix),
      items(other.items),
      least_properties(other.least_properties),
      most_properties(other.most_properties),
      lists_properties(other.lists_properties),
      properties(other.properties),
      required(other.required),
      required_order(other.required_order),
      pattern_properties(other.pattern_properties),
      other_properties(other.other_properties),
      names(other.names),
      unheld(other.unheld) {}

SchemaPart Merger::made(Json schema) {
    std::string text = schema.dump();
    languages_.take(text.size() / 16);
    auto& place = made_[text];
    if (!place) {
        made_bytes_ += text.size();
        if (made_bytes_ > kMaxMade) {
            fail("putting the parts under allOf, anyOf and oneOf together takes too much; write them as one");
        }
        place = std::make_unique<Json>(std::move(schema));
    }
    return place.get();
}

SchemaPart Merger::all_of(const std::vector<SchemaPart>& parts) {
    std::vector<SchemaPart> saying;
    for (const SchemaPart part : parts) {
        if (!is_true(part) && std::find(saying.begin(), saying.end(), part) == saying.end()) {
            saying.push_back(part);
        }
    }
    if (saying.size() <= 1) {
        return saying.empty() ? nullptr : saying[0];
    }
    Json list = Json::array();
    for (const SchemaPart part : saying) {
        list.push_back(*part);
    }
    return made({{"allOf", std::move(list)}});
}

bool Merger::matches(const std::string& pattern, const std::string& text) {
    try {
        return languages_.accepts(pattern_language(&languages_, pattern), text);
    } catch (const std::runtime_error&) {
        return false;
    }
}

SchemaPart Merger::property(const Constraints& all, const std::string& name) {
    std::vector<SchemaPart> parts;
    bool known = false;
    for (const auto& [property, schema] : all.properties) {
        if (property == name) {
            known = true;
            parts.push_back(schema);
        }
    }
    for (const auto& [pattern, schema] : all.pattern_properties) {
        if (matches(pattern, name)) {
            known = true;
            parts.push_back(schema);
        }
    }
    return known ? all_of(parts) : all.other_properties;
}

void Merger::narrow(Constraints* all, SchemaPart part, const std::string& path) {
    if (part == nullptr || all->impossible) {
        return;
    }
    const Json& schema = *part;
    if (schema.is_boolean()) {
        all->impossible = !schema.get<bool>();
        return;
    }
    if (!following_.insert(part).second) {
        fail("a $ref or allOf at " + path + " leads back to itself");
    }
    languages_.take(8);
    all->parts.push_back(part);
    if (const Json* ref = member(schema, "$ref")) {
        const auto target = ref->get<std::string>();
        narrow(all, &referred(document_, target, path), target);
    }
    if (const Json* parts = member(schema, "allOf")) {
        size_t number = 0;
        for (const Json& one : *parts) {
            narrow(all, &one, path + "/allOf/" + std::to_string(number++));
        }
    }
    for (const char* keyword : {"anyOf", "oneOf"}) {
        const Json* list = member(schema, keyword);
        if (list != nullptr && list->size() == 1) {
            narrow(all, &(*list)[0], path + "/" + keyword + "/0");
        } else if (list != nullptr) {
            Choice choice{keyword, path + "/" + keyword, {}};
            for (const Json& one : *list) {
                choice.parts.push_back(&one);
            }
            all->choices.push_back(std::move(choice));
        }
    }
    following_.erase(part);
    for (const auto& [keyword, types] : kKeywords) {
        if (member(schema, keyword) != nullptr) {
            all->mentioned |= types;
            all->bare = false;
        }
    }
    narrow_type(all, schema);
    narrow_values(all, schema);
    narrow_not(all, schema, path);
    narrow_number(all, schema);
    narrow_string(all, schema, path);
    narrow_array(all, schema, path);
    narrow_object(all, schema, path);
    note(all, schema, path);
}

void Merger::narrow_type(Constraints* all, const Json& schema) {
    const Json* type = member(schema, "type");
    if (type == nullptr) {
        return;
    }
    all->bare = false;
    unsigned types = schema.value("nullable", false) ? kNull : 0u;
    for (const Json& one : type->is_array() ? *type : Json::array({*type})) {
        types |= type_of(one.get<std::string>());
    }
    all->types &= types;
}

void Merger::narrow_values(Constraints* all, const Json& schema) {
    std::vector<Json> values;
    if (const Json* list = member(schema, "enum")) {
        values.assign(list->begin(), list->end());
    } else if (const Json* value = member(schema, "const")) {
        values.push_back(*value);
    } else {
        return;
    }
    all->bare = false;
    if (!all->values) {  // what else is said about them is asked of each value
        all->values = std::make_unique<std::vector<Json>>(std::move(values));
    }
}

void Merger::narrow_not(Constraints* all, const Json& schema, const std::string& path) {
    const Json* no = member(schema, "not");
    if (no == nullptr) {
        return;
    }
    all->bare = false;
    if (is_true(no)) {
        all->impossible = true;
        return;
    }
    if (no->is_boolean()) {
        return;
    }
    const Json* values = member(*no, "enum");
    const Json listed = values != nullptr      ? *values
                        : member(*no, "const") ? Json::array({no->at("const")})
                                               : Json();
    const Json* type = member(*no, "type");
    const auto alone = [&](const char* keyword) {
        return std::all_of(std::begin(kKeywords), std::end(kKeywords),
                           [&](const auto& one) { return !no->contains(one.first); }) &&
               std::all_of(std::begin(kUnheld), std::end(kUnheld),
                           [&](const auto& one) { return !no->contains(one.first); }) &&
               std::all_of(std::begin(kApplied), std::end(kApplied), [&](const char* one) {
                   return std::string(one) == keyword || !no->contains(one);
               });
    };
    if (type != nullptr && alone("type")) {
        for (const Json& one : type->is_array() ? *type : Json::array({*type})) {
            all->types &= ~type_of(one.get<std::string>());
        }
        return;
    }
    const bool only_texts = listed.is_array() && alone(values != nullptr ? "enum" : "const") &&
                            std::all_of(listed.begin(), listed.end(),
                                        [](const Json& one) { return one.is_string() || one.is_null(); });
    if (!only_texts) {
        all->unheld.push_back({kAnyType, "not at " + path});
        return;
    }
    for (const Json& one : listed) {
        if (one.is_null()) {
            all->types &= ~static_cast<unsigned>(kNull);
        } else {
            all->not_texts.insert(one.get<std::string>());
        }
    }
}

void Merger::narrow_number(Constraints* all, const Json& schema) {
    NumberLimits more = number_limits(schema);
    NumberLimits& limits = all->numbers;
    const auto narrow_bound = [](std::optional<Decimal>* bound, bool* open,
                                 const std::optional<Decimal>& other, bool other_open, int sign) {
        if (!other) {
            return;
        }
        const int order = *bound ? compare(*other, **bound) * sign : 1;
        if (order > 0) {
            *bound = other;
            *open = other_open;
        } else if (order == 0) {
            *open = *open || other_open;
        }
    };
    narrow_bound(&limits.least, &limits.above_least, more.least, more.above_least, 1);
    narrow_bound(&limits.most, &limits.below_most, more.most, more.below_most, -1);
    for (const Decimal& divisor : more.divisors) {
        if (std::none_of(limits.divisors.begin(), limits.divisors.end(),
                         [&](const Decimal& known) { return compare(known, divisor) == 0; })) {
            limits.divisors.push_back(divisor);
        }
    }
}

void Merger::narrow_string(Constraints* all, const Json& schema, const std::string& path) {
    all->least_length = std::max(all->least_length, count(schema, "minLength", 0));
    all->most_length = std::min(all->most_length, count(schema, "maxLength", SIZE_MAX));
    if (const Json* pattern = member(schema, "pattern")) {
        all->patterns.insert(pattern->get<std::string>());
    }
    const Json* format = member(schema, "format");
    if (format == nullptr) {
        return;
    }
    const auto name = format->get<std::string>();
    // OpenAPI's formats of numbers
    if (name == "int32" || name == "int64" || name == "uint32" || name == "uint64" || name == "uint8") {
        const bool is_signed = name[0] == 'i';
        const std::string bits = name.substr(is_signed ? 3 : 4);
        const std::string most = bits == "8" ? "255"
                                 : bits == "32"
                                     ? (is_signed ? "2147483647" : "4294967295")
                                     : (is_signed ? "9223372036854775807" : "18446744073709551615");
        const std::string least = !is_signed ? "0" : bits == "32" ? "-2147483648" : "-9223372036854775808";
        if (all->types & kNumber) {
            narrow_number(all, {{"minimum", Json::parse(least)}, {"maximum", Json::parse(most)}});
        }
        return;
    }
    if (name == "float" || name == "double" || name == "decimal") {
        return;
    }
    const char* pattern = format_pattern(name);
    if (pattern == nullptr) {
        all->unheld.push_back({kString, "format \"" + name + "\" at " + path});
    } else if (*pattern != 0) {
        all->formats.insert(name);
    }
}

void Merger::narrow_array(Constraints* all, const Json& schema, const std::string& path) {
    (void)path;
    all->counts_items = all->counts_items || member(schema, "minItems") != nullptr;
    all->least_items = std::max(all->least_items, count(schema, "minItems", 0));
    all->most_items = std::min(all->most_items, count(schema, "maxItems", SIZE_MAX));
    all->unique_items = all->unique_items || schema.value("uniqueItems", false);
    const Json* items = member(schema, "items");
    const Json* prefix = items != nullptr && items->is_array() ? items : member(schema, "prefixItems");
    SchemaPart rest = prefix != nullptr && prefix == items ? member(schema, "additionalItems") : items;
    if (rest == nullptr) {
        rest = member(schema, "unevaluatedItems");
    }
    const size_t length = std::max(all->prefix.size(), prefix == nullptr ? 0 : prefix->size());
    for (size_t i = 0; i < length; ++i) {
        const SchemaPart more = prefix != nullptr && i < prefix->size() ? &(*prefix)[i] : rest;
        if (i < all->prefix.size()) {
            all->prefix[i] = all_of({all->prefix[i], more});
        } else {
            all->prefix.push_back(all_of({all->items, more}));
        }
    }
    all->items = all_of({all->items, rest});
}

void Merger::narrow_object(Constraints* all, const Json& schema, const std::string& path) {
    (void)path;
    all->least_properties = std::max(all->least_properties, count(schema, "minProperties", 0));
    all->most_properties = std::min(all->most_properties, count(schema, "maxProperties", SIZE_MAX));
    if (const Json* names = member(schema, "required")) {
        for (const Json& name : *names) {
            if (all->required.insert(name.get<std::string>()).second) {
                all->required_order.push_back(name.get<std::string>());
            }
        }
    }
    if (const Json* names = member(schema, "propertyNames")) {
        all->names.push_back(names);
    }
    const Json* properties = member(schema, "properties");
    const Json* patterns = member(schema, "patternProperties");
    SchemaPart others = member(schema, "additionalProperties");
    if (others == nullptr) {
        others = member(schema, "unevaluatedProperties");
    }
    if (properties == nullptr && patterns == nullptr && others == nullptr) {
        return;
    }
    all->lists_properties = all->lists_properties || properties != nullptr || patterns != nullptr;
    // Each side says something about the properties of the other.
    Constraints side;
    const Json none = Json::object();
    for (const auto& [name, one] : (properties == nullptr ? none : *properties).items()) {
        side.properties.emplace_back(name, &one);
    }
    for (const auto& [name, one] : (patterns == nullptr ? none : *patterns).items()) {
        side.pattern_properties[name] = &one;
    }
    side.other_properties = others;
    languages_.take((all->properties.size() + 1) * (side.properties.size() + 1) / 4);
    std::vector<std::pair<std::string, SchemaPart>> together;
    for (const auto& [name, one] : all->properties) {
        together.emplace_back(name, all_of({one, property(side, name)}));
    }
    for (const auto& [name, one] : side.properties) {
        const bool known = std::any_of(together.begin(), together.end(),
                                       [&name = name](const auto& other) { return other.first == name; });
        if (!known) {
            together.emplace_back(name, all_of({one, property(*all, name)}));
        }
    }
    all->properties = std::move(together);
    for (const auto& [pattern, one] : side.pattern_properties) {
        const auto known = all->pattern_properties.find(pattern);
        all->pattern_properties[pattern] =
            known == all->pattern_properties.end() ? one : all_of({known->second, one});
    }
    if (others != nullptr) {
        const SchemaPart both = all_of({all->other_properties, others});
        all->other_properties = both == nullptr ? others : both;
    }
}

void Merger::note(Constraints* all, const Json& schema, const std::string& path) {
    for (const auto& [keyword, types] : kUnheld) {
        const Json* value = member(schema, keyword);
        if (value == nullptr || ((value->is_object() || value->is_array()) && value->empty())) {
            continue;
        }
        const std::string name = keyword;
        if ((name == "if" && !schema.contains("then") && !schema.contains("else")) ||
            (name == "contains" && count(schema, "minContains", 1) == 0 && !schema.contains("maxContains"))) {
            continue;
        }
        all->bare = false;
        all->unheld.push_back({types, name + " at " + path});
    }
}

}  // namespace trit::schema
