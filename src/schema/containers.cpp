// SPDX-License-Identifier: MIT
#include <algorithm>
#include <stdexcept>

#include "schema/builder.h"
#include "schema/pattern.h"

namespace trit::schema {
namespace {

constexpr const char* kComma = R"("," json-space )";
constexpr size_t kMaxDistinct = 8;   // values of which every set is a rule
constexpr size_t kMaxPatterns = 4;   // patterns of names, of which every set is a kind of name
constexpr size_t kMaxCounted = 500;  // properties that are counted

}  // namespace

bool Builder::finite_values(SchemaPart schema, const std::string& path, std::vector<Json>* values) {
    if (schema == nullptr) {
        return false;
    }
    Constraints all;
    merger_.narrow(&all, schema, path);
    if (all.impossible || !all.choices.empty()) {
        return false;
    }
    std::vector<Json> listed;
    if (all.values) {
        listed = *all.values;
    } else if (all.types != 0 && (all.types & ~static_cast<unsigned>(kBoolean | kNull)) == 0) {
        if (all.types & kBoolean) {
            listed.insert(listed.end(), {true, false});
        }
        if (all.types & kNull) {
            listed.push_back(nullptr);
        }
    } else {
        return false;
    }
    for (const Json& value : listed) {
        const bool good = std::all_of(all.parts.begin(), all.parts.end(), [&](SchemaPart part) {
            return allows(&languages_, document_, *part, value);
        });
        if (good && std::find(values->begin(), values->end(), value) == values->end()) {
            values->push_back(value);
        }
    }
    return true;
}

/// Every set of values that are used is a rule, with the values that may still come.
Rule Builder::distinct_items(Constraints* all, const std::vector<Json>& values) {
    const size_t least = all->least_items;
    const size_t most = std::min(all->most_items, values.size());
    if (least > most) {
        return "";
    }
    const size_t first = number_;
    number_ += size_t{1} << values.size();
    const auto name = [&](size_t set) { return prefix_ + std::to_string(first + set); };
    for (size_t used = 0; used < size_t{1} << values.size(); ++used) {
        size_t count = 0;
        for (size_t bit = 0; bit < values.size(); ++bit) {
            count += used >> bit & 1;
        }
        if (count > most) {
            continue;
        }
        bool any = count >= least;
        std::string body = any ? R"("")" : "";
        for (size_t bit = 0; bit < values.size() && count < most; ++bit) {
            if ((used >> bit & 1) == 0) {
                body += (any ? " | " : "") + (count > 0 ? std::string(kComma) : "") + literal(values[bit]) +
                        " " + name(used | size_t{1} << bit);
                any = true;
            }
        }
        set(name(used), body);
    }
    return add(R"("[" json-space )" + name(0) + R"( json-space "]")");
}

Rule Builder::array(Constraints* all) {
    size_t least = all->least_items;
    size_t most = all->most_items;
    const std::string limits = "minItems, maxItems and items at " + all->path + " leave no value";
    std::vector<Json> values;
    if (all->unique_items && most > 1) {
        if (all->prefix.empty() && finite_values(all->items, all->path + "/items", &values) &&
            values.size() <= kMaxDistinct) {
            const Rule rule = distinct_items(all, values);
            all->why =
                rule.empty() ? "uniqueItems, minItems and items at " + all->path + " leave no value" : "";
            return rule;
        }
        warn("uniqueItems at " + all->path);
    }
    ++level_;
    std::vector<Rule> prefix;
    for (size_t i = 0; i < all->prefix.size() && prefix.size() < most; ++i) {
        const Rule rule = rule_of(all->prefix[i], all->path + "/prefixItems/" + std::to_string(i));
        if (rule.empty()) {
            most = std::min(most, i);
            break;
        }
        prefix.push_back(rule);
    }
    Rule item;
    if (most > prefix.size()) {
        item = rule_of(all->items, all->path + "/items");
        if (item.empty()) {
            most = std::min(most, prefix.size());
        }
    }
    --level_;
    if (!all->counts_items) {  // a tuple is meant whole
        least = std::min(prefix.size(), most);
    }
    if (least > most) {
        all->why = limits;
        return "";
    }
    if (most == 0) {
        return add(R"("[" json-space "]")");
    }
    // From the end: what may follow each item.
    const size_t tuple = prefix.size();
    std::string tail;
    if (most > tuple) {
        const size_t from = std::max<size_t>(tuple, 1);  // the first item has no comma in front
        const Rule next = add(kComma + item);
        tail = repetition(next, std::max(least, from) - from, most == SIZE_MAX ? most : most - from,
                          "maxItems at " + all->path);
        if (tuple == 0) {
            tail = item + " " + tail;
            tail = least == 0 ? "(" + tail + ")?" : tail;
        }
    }
    for (size_t i = tuple; i-- > 0;) {
        const Rule rule = add((i > 0 ? kComma : "") + prefix[i] + " " + tail);
        tail = i < least ? rule : rule + "?";
    }
    return add(R"("[" json-space )" + tail + R"( json-space "]")");
}

/// Members whose names are not written out: each with the names that it may have, as "name: value".
std::vector<std::string> Builder::wildcards(Constraints* all, const std::vector<std::string>& known) {
    std::vector<std::string> out;
    std::vector<Language> allowed;
    bool any_name = true;
    for (const SchemaPart names : all->names) {
        Constraints texts;
        texts.path = all->path + "/propertyNames";
        merger_.narrow(&texts, names, texts.path);
        if (texts.impossible || (texts.types & kString) == 0) {
            return {};
        }
        if (!texts.choices.empty()) {
            warn("propertyNames at " + all->path);
            continue;
        }
        for (const Unheld& one : texts.unheld) {
            warn(one.what);
        }
        any_name = false;
        if (texts.values) {
            std::vector<Language> listed;
            for (const Json& value : *texts.values) {
                if (value.is_string() && allows(&languages_, document_, *names, value)) {
                    listed.push_back(languages_.text(value.get<std::string>()));
                }
            }
            allowed.push_back(languages_.either(listed));
            continue;
        }
        std::vector<std::string> held;
        allowed.push_back(text_language(&texts, &held));
        const size_t most = texts.most_length;
        allowed.push_back(
            languages_.repeat(languages_.chars({{0, kLastCodePoint}}),
                              static_cast<uint32_t>(std::min<size_t>(texts.least_length, kNoLimit - 1)),
                              most >= kNoLimit ? kNoLimit : static_cast<uint32_t>(most)));
    }
    std::vector<Language> patterns;
    std::vector<SchemaPart> values;
    for (const auto& [pattern, schema] : all->pattern_properties) {
        try {
            if (patterns.size() == kMaxPatterns) {
                throw TooLarge("more than 4 patterns");
            }
            const Language language = pattern_language(&languages_, pattern);
            languages_.automaton(language);
            patterns.push_back(language);
            values.push_back(schema);
        } catch (const std::runtime_error& error) {
            warn("patternProperties " + pattern + " at " + all->path + " (" + error.what() + ")");
        }
    }
    std::vector<Language> written;
    for (const std::string& name : known) {
        written.push_back(languages_.text(name));
    }
    for (size_t set = 0; set < size_t{1} << patterns.size(); ++set) {
        std::vector<SchemaPart> parts;
        std::vector<Language> names = allowed;
        names.push_back(languages_.none_of(languages_.either(written)));
        for (size_t i = 0; i < patterns.size(); ++i) {
            const bool in = (set >> i & 1) != 0;
            names.push_back(in ? patterns[i] : languages_.none_of(patterns[i]));
            if (in) {
                parts.push_back(values[i]);
            }
        }
        const SchemaPart schema = set == 0 ? all->other_properties : merger_.all_of(parts);
        const Json* absent = nullptr;
        if (set == 0 && schema == absent && all->lists_properties && all->least_properties <= known.size()) {
            continue;  // an object with properties has no others unless it says so
        }
        const Rule value =
            rule_of(schema, all->path + (set == 0 ? "/additionalProperties" : "/patternProperties"));
        if (value.empty()) {
            continue;
        }
        Rule name;
        if (any_name && known.empty() && patterns.empty()) {
            name = shared("string");
        } else {
            try {
                name = quoted(languages_.automaton(languages_.both(names)));
            } catch (const TooLarge&) {
                fail("the names of properties at " + all->path +
                     " are too long together; make them fewer or shorter");
            }
        }
        if (!name.empty()) {
            out.push_back(name + R"( ":" json-space )" + value);
        }
    }
    return out;
}

Rule Builder::object(Constraints* all) {
    struct Named {
        std::string member;
        bool required;
    };
    std::vector<std::string> known;
    for (const auto& [name, unused] : all->properties) {
        known.push_back(name);
    }
    for (const std::string& name : all->required_order) {
        if (std::find(known.begin(), known.end(), name) == known.end()) {
            known.push_back(name);
        }
    }
    ++level_;
    std::vector<Named> members;
    size_t required = 0;
    for (const std::string& name : known) {
        const bool needed = all->required.count(name) > 0;
        const bool named = std::all_of(all->names.begin(), all->names.end(), [&](SchemaPart names) {
            return allows(&languages_, document_, *names, Json(name));
        });
        const Rule value =
            named ? rule_of(merger_.property(*all, name), all->path + "/properties/" + name) : std::string();
        if (!value.empty()) {
            members.push_back({literal(Json(name)) + R"( ":" json-space )" + value, needed});
            required += needed;
        } else if (needed) {
            --level_;
            all->why = "required \"" + name + "\" at " + all->path + " is a property that cannot be";
            return "";
        }
    }
    const std::vector<std::string> others = wildcards(all, known);
    --level_;
    const size_t least = all->least_properties;
    size_t most = all->most_properties;
    if (required > most || (others.empty() && least > members.size())) {
        all->why = "required, minProperties, maxProperties and additionalProperties at " + all->path +
                   " leave no value";
        return "";
    }
    // A name that is written twice counts once, so only the first of the others is sure to count.
    if (!others.empty() && least > required + 1) {
        warn("minProperties at " + all->path);
    }
    if (others.empty() && most >= members.size()) {
        most = SIZE_MAX;
    }
    const size_t limit = most == SIZE_MAX ? least : std::max(least, most);
    size_t cap = std::max<size_t>(1, limit <= required && most == SIZE_MAX ? 0 : limit);
    if (cap > kMaxCounted || cap * (members.size() + 1) > 20000) {
        warn((most == SIZE_MAX ? "minProperties at " : "maxProperties at ") + all->path);
        most = SIZE_MAX;
        cap = 1;
    }
    const size_t needed_count = cap == 1 && least > 1 ? 0 : least;
    // A rule for each member and number of members before it, from the end; "-" where nothing can follow.
    const std::string dead = "-";
    std::vector<Rule> behind(cap + 1, dead);
    std::string other;
    for (const std::string& one : others) {
        other += (other.empty() ? "" : " | ") + one;
    }
    const Rule wildcard = other.empty() ? "" : add(other);
    for (size_t count = cap + 1; count-- > 0;) {
        const size_t next = std::min(count + 1, cap);
        const bool may_end = count >= needed_count;
        std::string body;
        bool any = may_end;
        if (!wildcard.empty() && (most == SIZE_MAX || count < most)) {
            const std::string entry = (count > 0 ? kComma : "") + wildcard + " ";
            if (next == count) {
                behind[count] = prefix_ + std::to_string(number_++);
                set(behind[count], std::string(may_end ? R"("" | )" : "") + entry + behind[count]);
                continue;
            }
            if (behind[next] != dead) {
                body = std::string(may_end ? R"("" | )" : "") + entry + behind[next];
                any = true;
            }
        }
        behind[count] = any ? add(body) : dead;
    }
    for (size_t i = members.size(); i-- > 0;) {
        std::vector<Rule> before(cap + 1, dead);
        for (size_t count = 0; count <= cap; ++count) {
            const size_t next = std::min(count + 1, cap);
            std::string body;
            if ((most == SIZE_MAX || count < most) && behind[next] != dead) {
                body = (count > 0 ? kComma : "") + members[i].member + " " + behind[next];
            }
            if (!members[i].required && behind[count] != dead) {
                body += (body.empty() ? "" : " | ") + behind[count];
            }
            before[count] = body.empty() ? dead : add(body);
        }
        behind = std::move(before);
    }
    if (behind[0] == dead) {
        all->why = "required, minProperties and maxProperties at " + all->path + " leave no value";
        return "";
    }
    return add(R"("{" json-space )" + behind[0] + R"( json-space "}")");
}

}  // namespace trit::schema
