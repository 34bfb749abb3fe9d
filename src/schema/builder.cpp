// SPDX-License-Identifier: MIT
#include "schema/builder.h"

#include <algorithm>
#include <cstdio>
#include <stdexcept>

namespace trit::schema {
namespace {

constexpr size_t kMaxBytes = 1u << 20;
constexpr size_t kMaxBuilt = 10000;
constexpr size_t kMaxChoices = 4096;  // as many as the engine takes at once
constexpr int kMaxLevel = 256;
constexpr size_t kMaxText = 1u << 20;

/// What several schemas share. White space is bounded, so that a weak model cannot write it for ever.
const std::map<std::string, std::pair<std::string, std::vector<std::string>>> kShared = {
    {"space", {R"(| " " | "\n"{1,2} [ \t]{0,20})", {}}},
    {"boolean", {R"("true" | "false")", {}}},
    {"null", {R"("null")", {}}},
    {"whole", {"\"-\"? ([0] | [1-9] [0-9]{0,15})", {}}},
    {"number", {R"(json-whole ("." [0-9]{1,16})? ([eE] [-+]? ([0] | [1-9] [0-9]{0,1}))?)", {"whole"}}},
    // A character beyond the first plane stands as it is: half of one behind \u would be no text.
    {"char",
     {R"([^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" ([0-9a-cA-Ce-fE-F] [0-9a-fA-F]{3} | [dD] [0-7] [0-9a-fA-F]{2})))",
      {}}},
    {"string", {R"("\"" json-char* "\"")", {"char"}}},
    {"value",
     {"json-object | json-array | json-string | json-number | json-boolean | json-null",
      {"object", "array", "string", "number", "boolean", "null"}}},
    {"object",
     {R"("{" json-space (json-string ":" json-space json-value ("," json-space json-string ":" json-space json-value)*)? json-space "}")",
      {"space", "string", "value"}}},
    {"array",
     {R"("[" json-space (json-value ("," json-space json-value)*)? json-space "]")", {"space", "value"}}},
};

const char* type_name(unsigned type) {
    switch (type) {
        case kNull:
            return "null";
        case kBoolean:
            return "boolean";
        case kInteger:
            return "integer";
        case kNumber:
            return "number";
        case kString:
            return "string";
        case kArray:
            return "array";
        default:
            return "object";
    }
}

}  // namespace

std::string Grammar::gbnf() const {
    std::string text = "root ::= " + root + "\n";
    for (const auto& [name, body] : rules) {
        text += name + " ::= " + body + "\n";
    }
    return text;
}

Builder::Builder(const Json& document, std::string prefix, std::string closing)
    : document_(document),
      prefix_(std::move(prefix)),
      closing_(std::move(closing)),
      merger_(&languages_, document) {}

void Builder::set(const Rule& name, const std::string& body) {
    bytes_ += name.size() + body.size() + 6;
    if (bytes_ > kMaxBytes) {
        fail("the schema makes a grammar of more than 1048576 bytes; make it smaller");
    }
    out_.rules[name] = body.empty() ? R"("")" : body;
}

Rule Builder::add(const std::string& body) {
    const Rule name = prefix_ + std::to_string(number_++);
    set(name, body);
    return name;
}

Rule Builder::shared(const std::string& name) {
    const Rule rule = "json-" + name;
    if (out_.rules.count(rule) == 0) {
        const auto& [body, needed] = kShared.at(name);
        set(rule, body);
        for (const std::string& other : needed) {
            shared(other);
        }
    }
    return rule;
}

void Builder::warn(const std::string& what) {
    if (warned_.insert(what).second) {
        out_.warnings.push_back(one_line(what));
    }
}

std::string Builder::literal(const Json& value) { return quoted_text(value.dump()); }

std::string Builder::quoted_text(const std::string& text) {
    std::string out = "\"";
    for (const char letter : text) {
        if (letter >= 0 && letter < ' ') {  // of bare texts
            char escaped[8];
            std::snprintf(escaped, sizeof escaped, "\\x%02X", letter);
            out += escaped;
            continue;
        }
        if (letter == '"' || letter == '\\') {
            out += '\\';
        }
        out += letter;
    }
    return out + "\"";
}

std::string Builder::repetition(const std::string& item, size_t least, size_t most, const std::string& what) {
    // The engine writes out every repetition: longer ones are made of blocks.
    constexpr size_t kBlock = 500;
    constexpr size_t kMaxBlocks = 2000;
    if (most == 0) {
        return "";
    }
    if (least <= kBlock && (most == SIZE_MAX || most <= kBlock)) {
        return item + "{" + std::to_string(least) + "," + (most == SIZE_MAX ? "" : std::to_string(most)) +
               "}";
    }
    if (least > kBlock * kMaxBlocks) {
        fail(what + " asks for more than 1000000");
    }
    if (most != SIZE_MAX && most > kBlock * kMaxBlocks) {
        warn(what);
        most = SIZE_MAX;
    }
    const Rule block = add(item + "{500}");
    std::string out;
    if (least >= kBlock) {
        out = block + "{" + std::to_string(least / kBlock) + "} ";
    }
    if (least % kBlock > 0) {
        out += item + "{" + std::to_string(least % kBlock) + "} ";
    }
    if (most == SIZE_MAX) {
        return out + item + "*";
    }
    const size_t optional = most - least;
    Rule more = add(item + "{0," + std::to_string(optional % kBlock) + "}");
    if (optional >= kBlock) {
        const Rule fewer = add(item + "{0,499}");
        for (size_t i = 0; i < optional / kBlock; ++i) {
            more = add(block + " " + more + " | " + fewer);
        }
    }
    return out + more;
}

Rule Builder::rule_of(SchemaPart schema, const std::string& path) {
    if (schema == nullptr || (schema->is_boolean() && schema->get<bool>()) ||
        (schema->is_object() && schema->empty())) {
        return any_value();
    }
    if (schema->is_boolean()) {
        return "";
    }
    const auto [place, is_new] = known_.emplace(std::pair(schema, bare()), Known{"", level_, false});
    Known& known = place->second;
    if (!is_new) {
        if (!known.done && known.level == level_) {
            fail("a $ref at " + path + " leads back to itself without a value in between");
        }
        return known.rule;
    }
    if (level_ > kMaxLevel) {
        fail("putting the parts under allOf and $ref together nests them deeper than 256 levels");
    }
    known.rule = prefix_ + std::to_string(number_++);
    // A reference alone is the rule to which it leads, which others may share.
    Constraints all;
    all.path = path;
    merger_.narrow(&all, schema, path);
    const Json* ref = member(*schema, "$ref");
    const Json* target = ref == nullptr ? nullptr : &referred(document_, ref->get<std::string>(), path);
    Constraints alone;
    bool is_alone = false;
    if (target != nullptr) {
        Json others = *schema;
        others.erase("$ref");
        const SchemaPart rest = merger_.made(std::move(others));
        merger_.narrow(&alone, rest, path);
        is_alone = alone.bare && alone.choices.empty() && !alone.impossible;
    }
    const Rule rule = is_alone ? rule_of(target, ref->get<std::string>()) : rule_of(&all);
    if (rule.empty() && !all.why.empty()) {
        fail(all.why);
    }
    // Nothing refers to a rule that allows nothing, but a value within itself.
    Known& again = known_.at({schema, bare()});
    if (!rule.empty()) {
        set(again.rule, rule);
    } else {
        again.rule = "";
    }
    again.done = true;
    return again.rule;
}

void Builder::take_types(Constraints* all) {
    // Keywords of one type without "type" mean values of that type.
    if (all->types == kAnyType && all->mentioned != 0) {
        all->types = all->mentioned;
    }
}

Rule Builder::rule_of(Constraints* all) {
    if (++built_ > kMaxBuilt) {
        fail("the alternatives under anyOf and oneOf are too many together; make them fewer");
    }
    if (all->impossible) {
        return "";
    }
    if (!all->choices.empty()) {
        return choice(*all);
    }
    if (all->values) {
        return listed(all);
    }
    take_types(all);
    if (all->types == kAnyType) {
        for (const Unheld& one : all->unheld) {
            warn(one.what);
        }
        return any_value();
    }
    for (const Unheld& one : all->unheld) {
        if (one.types & all->types) {
            warn(one.what);
        }
    }
    if (all->types == 0) {
        all->why = "the types at " + all->path + " leave no value";
        return "";
    }
    std::vector<unsigned> types;
    for (const unsigned type : {kObject, kArray, kString, kNumber, kBoolean, kNull}) {
        if (type == kNumber && (all->types & kNumber) != kNumber) {
            if (all->types & kInteger) {
                types.push_back(kInteger);
            }
        } else if (all->types & type) {
            types.push_back(type);
        }
    }
    std::string body;
    std::string why;
    for (const unsigned type : types) {
        const Rule rule = rule_of_type(all, type);
        if (rule.empty()) {
            why = why.empty() ? all->why : why;
        } else {
            body += (body.empty() ? "" : " | ") + rule;
        }
    }
    all->why = !body.empty() ? "" : why.empty() ? "the types at " + all->path + " leave no value" : why;
    return body.empty() ? "" : types.size() == 1 ? body : add(body);
}

Rule Builder::rule_of_type(Constraints* all, unsigned type) {
    switch (type) {
        case kObject:
            return object(all);
        case kArray:
            return array(all);
        case kString:
            return string(all);
        case kNull:
        case kBoolean:
            return shared(type_name(type));
        default:
            return number(all, type == kInteger);
    }
}

Rule Builder::choice(const Constraints& all) {
    Constraints rest(all);
    const Choice chosen = rest.choices.back();
    rest.choices.pop_back();
    const bool alone = rest.bare && rest.choices.empty();
    if (chosen.keyword == "oneOf") {
        warn_overlap(chosen);
    }
    std::vector<Rule> rules;
    std::string why;
    size_t number = 0;
    for (const SchemaPart part : chosen.parts) {
        const std::string path = chosen.path + "/" + std::to_string(number++);
        Rule rule;
        if (alone) {
            rule = rule_of(part, path);
        } else {
            Constraints one(rest);
            one.path = path;
            merger_.narrow(&one, part, path);
            rule = rule_of(&one);
            why = why.empty() ? one.why : why;
        }
        if (!rule.empty() && std::find(rules.begin(), rules.end(), rule) == rules.end()) {
            rules.push_back(rule);
        }
    }
    if (rules.size() > kMaxChoices) {
        fail(chosen.keyword + " at " + all.path + " has more than 4096 alternatives; write values as enum");
    }
    if (rules.empty()) {
        fail(why.empty() ? chosen.keyword + " at " + all.path + " leaves no value" : why);
    }
    std::string body = rules[0];
    for (size_t i = 1; i < rules.size(); ++i) {
        body += " | " + rules[i];
    }
    return rules.size() == 1 ? body : add(body);
}

/// oneOf allows a value that exactly one alternative allows: that is anyOf where no two can allow the same.
void Builder::warn_overlap(const Choice& choice) {
    struct Seen {
        unsigned types;
        const std::vector<Json>* values;
        std::map<std::string, std::vector<Json>> tags;  // what required properties may be
        const Constraints* all;
    };
    std::vector<Constraints> all;
    std::vector<Seen> seen;
    for (const SchemaPart part : choice.parts) {
        Constraints one;
        merger_.narrow(&one, part, choice.path);
        take_types(&one);
        all.push_back(std::move(one));
    }
    for (Constraints& one : all) {
        Seen next{one.types, one.values.get(), {}, &one};
        for (const auto& [name, schema] : one.properties) {
            std::vector<Json> values;
            if (one.required.count(name) > 0 && finite_values(schema, choice.path, &values)) {
                next.tags[name] = values;
            }
        }
        seen.push_back(std::move(next));
    }
    const auto disjoint = [](const std::vector<Json>& a, const std::vector<Json>& b) {
        return std::none_of(a.begin(), a.end(),
                            [&](const Json& one) { return std::find(b.begin(), b.end(), one) != b.end(); });
    };
    // Whether no object that the grammar makes of one alternative is of the other.
    const auto has = [](const Constraints& side, const std::string& name) {
        return side.required.count(name) > 0 ||
               std::any_of(side.properties.begin(), side.properties.end(),
                           [&name](const auto& property) { return property.first == name; });
    };
    const auto lacks = [&](const Constraints& side, const std::string& name, bool by_default) {
        const SchemaPart others = side.other_properties;
        const bool closed = others == nullptr ? by_default && side.lists_properties
                                              : others->is_boolean() && !others->get<bool>();
        return closed && side.pattern_properties.empty() && !has(side, name);
    };
    const auto rejected = [&](const Constraints& made, const Constraints& by) {
        const auto missing = [&](const std::string& name) { return lacks(made, name, true); };
        const auto forbidden = [&](const std::string& name) { return lacks(by, name, false); };
        return std::any_of(by.required.begin(), by.required.end(), missing) ||
               std::any_of(made.required.begin(), made.required.end(), forbidden);
    };
    const auto apart = [&](const Seen& a, const Seen& b) {
        if ((a.types & b.types) == 0 ||
            (a.values != nullptr && b.values != nullptr && disjoint(*a.values, *b.values))) {
            return true;
        }
        if ((a.types & b.types) == kObject && rejected(*a.all, *b.all) && rejected(*b.all, *a.all)) {
            return true;
        }
        return (a.types & b.types) == kObject &&
               std::any_of(a.tags.begin(), a.tags.end(), [&](const auto& tag) {
                   const auto other = b.tags.find(tag.first);
                   return other != b.tags.end() && disjoint(tag.second, other->second);
               });
    };
    for (size_t i = 0; i < seen.size(); ++i) {
        for (size_t j = 0; j < i; ++j) {
            if (!all[i].impossible && !all[j].impossible && !apart(seen[i], seen[j])) {
                warn("oneOf at " + choice.path.substr(0, choice.path.size() - 6));
                return;
            }
        }
    }
}

Rule Builder::listed(Constraints* all) {
    // A value that enum has as it is written is not compared with all the others.
    struct Part {
        SchemaPart whole;
        Json rest;
        std::set<std::string> values;
    };
    std::vector<Part> parts;
    for (const SchemaPart part : all->parts) {
        parts.push_back({part, Json(), {}});
        if (const Json* values = member(*part, "enum")) {
            for (const Json& value : *values) {
                parts.back().values.insert(value.dump());
            }
            parts.back().rest = *part;
            parts.back().rest.erase("enum");
        }
    }
    std::vector<std::string> texts;
    for (const Json& value : *all->values) {
        const std::string text = value.dump();
        const bool good = std::all_of(parts.begin(), parts.end(), [&](const Part& part) {
            return allows(&languages_, document_, part.values.count(text) > 0 ? part.rest : *part.whole,
                          value);
        });
        const bool as_it_is = bare() && value.is_string();
        if (good && (!as_it_is || languages_.accepts(unclosed(), value.get<std::string>()))) {
            texts.push_back(as_it_is ? value.get<std::string>() : text);
        }
    }
    if (texts.empty()) {
        all->why = "no value of enum or const at " + all->path + " is one that the other keywords allow";
        return "";
    }
    std::sort(texts.begin(), texts.end());
    texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
    return add(one_of(texts.data(), texts.data() + texts.size(), 0));
}

/// Sorted texts behind their first `at` bytes. What several begin with is written once: the engine compares
/// all alternatives that are open with each other.
std::string Builder::one_of(const std::string* begin, const std::string* end, size_t at) {
    const auto continues = [](char byte) { return (static_cast<uint8_t>(byte) & 0xC0) == 0x80; };
    const std::string& first = *begin;
    if (end - begin == 1) {
        return first.size() > at ? quoted_text(first.substr(at)) : R"("")";
    }
    const std::string& last = end[-1];  // sorted: what these two begin with all begin with
    size_t same = at;
    while (same < first.size() && same < last.size() && first[same] == last[same]) {
        ++same;
    }
    while (same > at && same < last.size() && continues(last[same])) {
        --same;
    }
    std::string body;
    while (begin < end) {
        const std::string* next = begin + 1;
        size_t length = 1;
        while (begin->size() > same + length && continues((*begin)[same + length])) {
            ++length;
        }
        while (next < end && begin->size() > same && next->compare(same, length, *begin, same, length) == 0) {
            ++next;
        }
        body += (body.empty() ? "" : " | ") + one_of(begin, next, same);
        begin = next;
    }
    return same > at ? quoted_text(first.substr(at, same - at)) + " " + add(body) : body;
}

Grammar Builder::build(const Json& schema) {
    shared("space");
    out_.root = rule_of(&schema, "#");
    if (out_.root.empty()) {
        fail("the schema allows no value");
    }
    if (!closing_.empty()) {
        out_.root = add(out_.root + " " + quoted_text(closing_));
    }
    return std::move(out_);
}

Grammar grammar_of(const std::string& document, const std::string& part, const std::string& prefix,
                   const std::string& closing) {
    if (document.size() > kMaxText) {
        fail("it has more than 1048576 bytes; send a smaller one");
    }
    const Json parsed = Json::parse(document);
    const Json schema = part == document ? Json() : Json::parse(part);
    const Json& wanted = part == document ? parsed : schema;
    try {
        check_schema(parsed, wanted);
        return Builder(parsed, prefix, closing).build(wanted);
    } catch (const TooLarge&) {
        fail("it takes too many steps; make its patterns and names shorter");
    }
}

}  // namespace trit::schema
