// SPDX-License-Identifier: MIT
#include "schema/values.h"

#include <algorithm>
#include <limits>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

#include "schema/pattern.h"

namespace trit::schema {
namespace {

constexpr int kMaxDepth = 128;
constexpr size_t kMaxParts = 5000;
constexpr size_t kMaxProperties = 256;
constexpr size_t kMaxName = 256;  // bytes

enum class Form : uint8_t {
    schema,
    schemas,  // a list that is not empty
    schema_or_list,
    named_schemas,
    dependencies,
    count,
    number,
    positive,
    bound,  // a number, or true or false of draft 4
    text,
    pattern,
    names,
    named_names,
    flag,
    values,  // a list that is not empty
    type,
};

constexpr std::pair<const char*, Form> kForms[] = {
    {"additionalItems", Form::schema},
    {"additionalProperties", Form::schema},
    {"allOf", Form::schemas},
    {"anyOf", Form::schemas},
    {"contains", Form::schema},
    {"contentEncoding", Form::text},
    {"contentMediaType", Form::text},
    {"dependencies", Form::dependencies},
    {"dependentRequired", Form::named_names},
    {"dependentSchemas", Form::named_schemas},
    {"else", Form::schema},
    {"enum", Form::values},
    {"exclusiveMaximum", Form::bound},
    {"exclusiveMinimum", Form::bound},
    {"format", Form::text},
    {"if", Form::schema},
    {"items", Form::schema_or_list},
    {"maxContains", Form::count},
    {"maxItems", Form::count},
    {"maxLength", Form::count},
    {"maxProperties", Form::count},
    {"maximum", Form::number},
    {"minContains", Form::count},
    {"minItems", Form::count},
    {"minLength", Form::count},
    {"minProperties", Form::count},
    {"minimum", Form::number},
    {"multipleOf", Form::positive},
    {"not", Form::schema},
    {"nullable", Form::flag},
    {"oneOf", Form::schemas},
    {"pattern", Form::pattern},
    {"patternProperties", Form::named_schemas},
    {"prefixItems", Form::schemas},
    {"properties", Form::named_schemas},
    {"propertyNames", Form::schema},
    {"required", Form::names},
    {"then", Form::schema},
    {"type", Form::type},
    {"unevaluatedItems", Form::schema},
    {"unevaluatedProperties", Form::schema},
    {"uniqueItems", Form::flag},
};

constexpr std::pair<const char*, const char*> kPairs[] = {
    {"minContains", "maxContains"},  {"minItems", "maxItems"},
    {"minLength", "maxLength"},      {"minProperties", "maxProperties"},
    {"minimum", "maximum"},          {"exclusiveMinimum", "maximum"},
    {"minimum", "exclusiveMaximum"}, {"exclusiveMinimum", "exclusiveMaximum"}};

const std::set<std::string> kTypes = {"array", "boolean", "integer", "null", "number", "object", "string"};

bool is_list_of_texts(const Json& value) {
    return value.is_array() &&
           std::all_of(value.begin(), value.end(), [](const Json& one) { return one.is_string(); });
}

bool is_count(const Json& value) {
    // 1.0 is a whole number, too.
    return value.is_number() && decimal(value).is_whole() && !decimal(value).negative;
}

class Checker {
 public:
    explicit Checker(const Json& document) : document_(document) {}

    void check(const Json& schema, const std::string& path) {
        if (!seen_.insert(&schema).second) {
            return;
        }
        if (schema.is_boolean()) {
            return;
        }
        if (!schema.is_object()) {
            fail("a schema at " + path + " must be an object, not " + shown(schema));
        }
        if (seen_.size() > kMaxParts) {
            fail("the schema has more than 5000 parts; send a smaller one");
        }
        if (++depth_ > kMaxDepth) {
            fail("the schema is nested deeper than 128 levels; flatten it");
        }
        if (const Json* ref = member(schema, "$ref")) {
            if (!ref->is_string()) {
                refuse("$ref", path, "a text", *ref);
            }
            check(referred(document_, ref->get<std::string>(), path), ref->get<std::string>());
        }
        for (const auto& [name, form] : kForms) {
            if (const Json* value = member(schema, name)) {
                check_form(name, form, *value, path);
            }
        }
        check_pairs(schema, path);
        check_sizes(schema, path);
        --depth_;
    }

 private:
    const Json& document_;
    Languages languages_;
    std::set<const Json*> seen_;
    int depth_ = 0;

    [[noreturn]] static void refuse(const char* name, const std::string& path, const char* wanted,
                                    const Json& value) {
        fail(std::string(name) + " at " + path + " must be " + wanted + ", not " + shown(value));
    }

    void check_list(const char* name, const Json& list, const std::string& path) {
        size_t number = 0;
        for (const Json& one : list) {
            check(one, path + "/" + name + "/" + std::to_string(number++));
        }
    }

    void check_form(const char* name, Form form, const Json& value, const std::string& path) {
        const auto want = [&](bool good, const char* wanted) {
            if (!good) {
                refuse(name, path, wanted, value);
            }
        };
        switch (form) {
            case Form::schema_or_list:
                if (value.is_array()) {
                    check_list(name, value, path);
                    return;
                }
                [[fallthrough]];
            case Form::schema:
                want(value.is_object() || value.is_boolean(), "a schema");
                check(value, path + "/" + name);
                return;
            case Form::schemas:
                want(value.is_array() && !value.empty(), "a list of schemas that is not empty");
                check_list(name, value, path);
                return;
            case Form::dependencies:
            case Form::named_schemas:
                want(value.is_object(), "an object of schemas");
                for (const auto& [key, one] : value.items()) {
                    if (form == Form::named_schemas || !is_list_of_texts(one)) {
                        check(one, path + "/" + name + "/" + key);
                    }
                    if (std::string(name) == "patternProperties") {
                        check_pattern(name, key, path);
                    }
                }
                return;
            case Form::count:
                want(is_count(value), "a whole number of at least 0");
                return;
            case Form::number:
                want(value.is_number(), "a number");
                return;
            case Form::positive:
                want(value.is_number() && !decimal(value).negative && !decimal(value).is_zero(),
                     "a number above 0");
                return;
            case Form::bound:
                want(value.is_number() || value.is_boolean(), "a number");
                return;
            case Form::pattern:
                want(value.is_string(), "a text");
                check_pattern(name, value.get<std::string>(), path);
                return;
            case Form::text:
                want(value.is_string(), "a text");
                return;
            case Form::names:
                want(is_list_of_texts(value), "a list of names");
                return;
            case Form::named_names:
                want(value.is_object() && std::all_of(value.begin(), value.end(), is_list_of_texts),
                     "an object of lists of names");
                return;
            case Form::flag:
                want(value.is_boolean(), "true or false");
                return;
            case Form::values:
                want(value.is_array() && !value.empty(), "a list of values that is not empty");
                return;
            case Form::type:
                want(!value.empty() && (value.is_string() || is_list_of_texts(value)),
                     "a type or a list of types that is not empty");
                for (const Json& one : value.is_array() ? value : Json::array({value})) {
                    want(kTypes.count(one.get<std::string>()) > 0, "a type of JSON");
                }
                return;
        }
    }

    void check_pattern(const char* name, const std::string& pattern, const std::string& path) {
        try {
            pattern_language(&languages_, pattern);
        } catch (const InvalidPattern& error) {
            fail(std::string(name) + " at " + path + ": " + pattern + " is no pattern (" + error.what() +
                 ")");
        } catch (const std::runtime_error&) {  // it may be kept by the model
        }
    }

    static void check_pairs(const Json& schema, const std::string& path) {
        for (const auto& [low, high] : kPairs) {
            const Json* least = member(schema, low);
            const Json* most = member(schema, high);
            if (least == nullptr || most == nullptr || !least->is_number() || !most->is_number()) {
                continue;
            }
            const bool open = low[0] == 'e' || high[0] == 'e';
            const int order = compare(decimal(*least), decimal(*most));
            if (order > 0 || (order == 0 && open)) {
                fail(std::string(low) + " " + least->dump() + " and " + high + " " + most->dump() + " at " +
                     path + " leave no value");
            }
        }
    }

    static void check_sizes(const Json& schema, const std::string& path) {
        const Json* properties = member(schema, "properties");
        if (properties == nullptr) {
            return;
        }
        if (properties->size() > kMaxProperties) {
            fail("properties at " + path + ": an object may have at most 256 properties");
        }
        for (const auto& [name, unused] : properties->items()) {
            if (name.size() > kMaxName) {
                fail("properties at " + path + ": a name may have at most 256 bytes");
            }
        }
    }
};

bool has_type(const Json& value, const std::string& type) {
    if (type == "integer") {
        return value.is_number() && decimal(value).is_whole();
    }
    return type == "null"      ? value.is_null()
           : type == "boolean" ? value.is_boolean()
           : type == "number"  ? value.is_number()
           : type == "string"  ? value.is_string()
           : type == "array"   ? value.is_array()
                               : value.is_object();
}

/// JSON Schema's equality: 1 and 1.0 are one value, and so are objects in any order.
bool same(const Json& a, const Json& b) {
    if (a.is_number() && b.is_number()) {
        return compare(decimal(a), decimal(b)) == 0;
    }
    if (a.is_array() && b.is_array()) {
        return std::equal(a.begin(), a.end(), b.begin(), b.end(), same);
    }
    if (a.is_object() && b.is_object()) {
        bool equal = a.size() == b.size();
        for (const auto& [name, value] : a.items()) {
            const Json* other = member(b, name.c_str());
            equal = equal && other != nullptr && same(value, *other);
        }
        return equal;
    }
    return a == b;
}

class Judge {
 public:
    Judge(Languages* languages, const Json& document) : languages_(*languages), document_(document) {}

    bool allows(const Json& schema, const Json& value) {
        if (schema.is_boolean()) {
            return schema.get<bool>();
        }
        if (++steps_ > kMaxSteps) {
            fail("the values of enum or const take too many steps to check");
        }
        if (const Json* ref = member(schema, "$ref")) {
            if (++depth_ > kMaxDepth) {
                fail("$ref " + ref->get<std::string>() + " leads back to itself");
            }
            const bool good = allows(referred(document_, ref->get<std::string>(), "#"), value);
            --depth_;
            if (!good) {
                return false;
            }
        }
        return allows_combined(schema, value) && allows_type(schema, value) &&
               (value.is_number()   ? allows_number(schema, value)
                : value.is_string() ? allows_string(schema, value)
                : value.is_array()  ? allows_array(schema, value)
                                    : !value.is_object() || allows_object(schema, value));
    }

 private:
    static constexpr size_t kMaxSteps = 1 << 18;

    Languages& languages_;
    const Json& document_;
    int depth_ = 0;
    size_t steps_ = 0;

    bool allows_combined(const Json& schema, const Json& value) {
        const auto good = [&](const Json& one) { return allows(one, value); };
        if (const Json* all = member(schema, "allOf"); all && !std::all_of(all->begin(), all->end(), good)) {
            return false;
        }
        if (const Json* any = member(schema, "anyOf"); any && std::none_of(any->begin(), any->end(), good)) {
            return false;
        }
        if (const Json* one = member(schema, "oneOf");
            one && std::count_if(one->begin(), one->end(), good) != 1) {
            return false;
        }
        if (const Json* no = member(schema, "not"); no && good(*no)) {
            return false;
        }
        if (const Json* condition = member(schema, "if")) {
            const Json* next = member(schema, good(*condition) ? "then" : "else");
            return next == nullptr || good(*next);
        }
        return true;
    }

    bool allows_type(const Json& schema, const Json& value) {
        if (const Json* type = member(schema, "type")) {
            const Json list = type->is_array() ? *type : Json::array({*type});
            const bool null = value.is_null() && schema.value("nullable", false);
            if (!null && std::none_of(list.begin(), list.end(), [&](const Json& one) {
                    return has_type(value, one.get<std::string>());
                })) {
                return false;
            }
        }
        if (const Json* wanted = member(schema, "const"); wanted && !same(*wanted, value)) {
            return false;
        }
        const Json* list = member(schema, "enum");
        return list == nullptr ||
               std::any_of(list->begin(), list->end(), [&](const Json& one) { return same(one, value); });
    }

    bool allows_number(const Json& schema, const Json& value) {
        const NumberLimits limits = number_limits(schema);
        const Decimal number = decimal(value);
        return (!limits.least || compare(number, *limits.least) >= (limits.above_least ? 1 : 0)) &&
               (!limits.most || compare(number, *limits.most) <= (limits.below_most ? -1 : 0)) &&
               std::all_of(limits.divisors.begin(), limits.divisors.end(),
                           [&](const Decimal& divisor) { return is_multiple(number, divisor); });
    }

    bool matches(const std::string& pattern, const std::string& text) {
        try {
            return languages_.accepts(pattern_language(&languages_, pattern), text);
        } catch (const std::runtime_error&) {
            return true;
        }
    }

    bool allows_string(const Json& schema, const Json& value) {
        const auto& text = value.get_ref<const std::string&>();
        const size_t length = code_points(text).size();
        if (length < count(schema, "minLength", 0) || length > count(schema, "maxLength", SIZE_MAX)) {
            return false;
        }
        if (const Json* pattern = member(schema, "pattern");
            pattern && !matches(pattern->get<std::string>(), text)) {
            return false;
        }
        const Json* format = member(schema, "format");
        const char* pattern = format == nullptr ? nullptr : format_pattern(format->get<std::string>());
        return pattern == nullptr || matches(pattern, text);
    }

    bool allows_array(const Json& schema, const Json& value) {
        if (value.size() < count(schema, "minItems", 0) ||
            value.size() > count(schema, "maxItems", SIZE_MAX)) {
            return false;
        }
        const Json* items = member(schema, "items");
        const Json* prefix = items != nullptr && items->is_array() ? items : member(schema, "prefixItems");
        const Json* rest = prefix == items ? member(schema, "additionalItems") : items;
        for (size_t i = 0; i < value.size(); ++i) {
            const Json* item = prefix != nullptr && i < prefix->size() ? &(*prefix)[i] : rest;
            if (item != nullptr && !allows(*item, value[i])) {
                return false;
            }
        }
        if (schema.value("uniqueItems", false)) {
            for (size_t i = 0; i < value.size(); ++i) {
                if (std::any_of(value.begin() + static_cast<std::ptrdiff_t>(i) + 1, value.end(),
                                [&](const Json& other) { return same(value[i], other); })) {
                    return false;
                }
            }
        }
        const Json* contains = member(schema, "contains");
        if (contains == nullptr) {
            return true;
        }
        const auto found = static_cast<size_t>(std::count_if(
            value.begin(), value.end(), [&](const Json& item) { return allows(*contains, item); }));
        return found >= count(schema, "minContains", 1) && found <= count(schema, "maxContains", SIZE_MAX);
    }

    bool allows_object(const Json& schema, const Json& value) {
        if (value.size() < count(schema, "minProperties", 0) ||
            value.size() > count(schema, "maxProperties", SIZE_MAX)) {
            return false;
        }
        const Json none = Json::object();
        const auto part = [&](const char* name) -> const Json& {
            const Json* found = member(schema, name);
            return found == nullptr ? none : *found;
        };
        const auto has_all = [&](const Json& names) {
            return std::all_of(names.begin(), names.end(),
                               [&](const Json& name) { return value.contains(name.get<std::string>()); });
        };
        if (!has_all(part("required"))) {
            return false;
        }
        for (const char* keyword : {"dependentRequired", "dependentSchemas", "dependencies"}) {
            for (const auto& [name, needed] : part(keyword).items()) {
                if (value.contains(name) && !(needed.is_array() ? has_all(needed) : allows(needed, value))) {
                    return false;
                }
            }
        }
        const Json* names = member(schema, "propertyNames");
        const Json* rest = member(schema, "additionalProperties");
        for (const auto& [name, inner] : value.items()) {
            if (names != nullptr && !allows(*names, Json(name))) {
                return false;
            }
            const Json* property = member(part("properties"), name.c_str());
            bool known = property != nullptr;
            if (known && !allows(*property, inner)) {
                return false;
            }
            for (const auto& [pattern, wanted] : part("patternProperties").items()) {
                if (matches(pattern, name)) {
                    known = true;
                    if (!allows(wanted, inner)) {
                        return false;
                    }
                }
            }
            if (!known && rest != nullptr && !allows(*rest, inner)) {
                return false;
            }
        }
        return true;
    }
};

}  // namespace

std::string shown(const Json& value) {
    std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (text.size() > 60) {
        text = text.substr(0, 57) + "...";
    }
    return text;
}

std::string one_line(std::string text) {
    std::replace_if(text.begin(), text.end(), [](char letter) { return letter >= 0 && letter < ' '; }, ' ');
    return text;
}

void fail(const std::string& what) { throw std::invalid_argument(one_line("JSON schema: " + what)); }

const Json* member(const Json& object, const char* name) {
    if (!object.is_object()) {
        return nullptr;
    }
    const auto found = object.find(name);
    return found == object.end() ? nullptr : &*found;
}

const Json* given(const Json& object, const char* name) {
    const Json* value = member(object, name);
    return value == nullptr || value->is_null() ? nullptr : value;
}

Decimal decimal(const Json& number) { return Decimal::read(number.dump()); }

size_t count(const Json& schema, const char* keyword, size_t otherwise) {
    const Json* value = member(schema, keyword);
    if (value == nullptr) {
        return otherwise;
    }
    const std::string digits = decimal(*value).whole;
    return digits.size() > 9 ? SIZE_MAX / 2 : std::stoul(digits);
}

NumberLimits number_limits(const Json& schema) {
    NumberLimits limits;
    const auto bound = [&](const char* name, const char* exclusive, int sign, std::optional<Decimal>* value,
                           bool* open) {
        const Json* closed_bound = member(schema, name);
        const Json* open_bound = member(schema, exclusive);
        if (closed_bound != nullptr) {
            *value = decimal(*closed_bound);
            *open = open_bound != nullptr && open_bound->is_boolean() && open_bound->get<bool>();
        }
        if (open_bound != nullptr && open_bound->is_number()) {
            const Decimal other = decimal(*open_bound);
            if (!*value || compare(other, **value) * sign >= 0) {
                *value = other;
                *open = true;
            }
        }
    };
    bound("minimum", "exclusiveMinimum", 1, &limits.least, &limits.above_least);
    bound("maximum", "exclusiveMaximum", -1, &limits.most, &limits.below_most);
    if (const Json* divisor = member(schema, "multipleOf")) {
        limits.divisors.push_back(decimal(*divisor));
    }
    return limits;
}

const Json& referred(const Json& document, const std::string& ref, const std::string& path) {
    if (ref != "#" && ref.compare(0, 2, "#/") != 0) {
        fail("$ref " + ref + " at " + path + " leads out of the schema; write that part under $defs");
    }
    const Json* here = &document;
    size_t start = 2;
    while (start <= ref.size()) {
        const size_t end = std::min(ref.find('/', start), ref.size());
        std::string name = ref.substr(start, end - start);
        for (const auto& [coded, plain] :
             {std::pair<const char*, const char*>{"~1", "/"}, {"~0", "~"}, {"%25", "%"}}) {
            for (size_t at = name.find(coded); at != std::string::npos; at = name.find(coded, at + 1)) {
                name.replace(at, std::char_traits<char>::length(coded), plain);
            }
        }
        const bool is_index =
            !name.empty() && name.size() < 7 && name.find_first_not_of("0123456789") == std::string::npos;
        if (here->is_array() && is_index && std::stoul(name) < here->size()) {
            here = &(*here)[std::stoul(name)];
        } else {
            here = member(*here, name.c_str());
        }
        if (here == nullptr) {
            fail("$ref " + ref + " at " + path + " leads nowhere");
        }
        start = end + 1;
    }
    return *here;
}

void check_schema(const Json& document, const Json& schema) { Checker(document).check(schema, "#"); }

bool allows(Languages* languages, const Json& document, const Json& schema, const Json& value) {
    return Judge(languages, document).allows(schema, value);
}

}  // namespace trit::schema
