// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstdio>
#include <stdexcept>

#include "schema/builder.h"
#include "schema/pattern.h"

namespace trit::schema {
namespace {

/// The most characters before a match of a pattern, and the most states that this may make in a schema.
constexpr uint32_t kMaxBefore = 64;
constexpr size_t kMaxCopied = 8192;

std::string one_character(uint32_t character) {
    char out[16];
    std::snprintf(out, sizeof out, character < 0x80 ? "\\x%02X" : "\\U%08X", character);
    const bool plain = (character >= '0' && character <= '9') || (character >= 'a' && character <= 'z') ||
                       (character >= 'A' && character <= 'Z') || character == '_' || character == ' ';
    return plain ? std::string(1, static_cast<char>(character)) : out;
}

std::string class_of(const Ranges& ranges) {
    if (ranges.empty()) {
        return "";
    }
    std::string out = "[";
    for (const auto& [low, high] : ranges) {
        out += one_character(low);
        if (high > low) {
            out += "-" + one_character(high);
        }
    }
    return out + "]";
}

/// What JSON writes for a character that cannot stand in a text as it is, in a grammar's literal; else "".
std::string escape_of(uint32_t character) {
    switch (character) {
        case '"':
            return R"("\\\"")";
        case '\\':
            return R"("\\\\")";
        case '\b':
            return R"("\\b")";
        case '\f':
            return R"("\\f")";
        case '\n':
            return R"("\\n")";
        case '\r':
            return R"("\\r")";
        case '\t':
            return R"("\\t")";
        default:
            break;
    }
    char out[16];
    std::snprintf(out, sizeof out, R"("\\u%04x")", character);
    return out;
}

std::string named(const std::vector<const char*>& keywords, const Constraints& all) {
    std::string out;
    for (const char* keyword : keywords) {
        const bool stands = std::any_of(all.parts.begin(), all.parts.end(),
                                        [&](SchemaPart part) { return member(*part, keyword) != nullptr; });
        if (stands) {
            out += (out.empty() ? "" : ", ") + std::string(keyword);
        }
    }
    return out + " at " + all.path + " leave no value";
}

}  // namespace

std::string Builder::characters(const Ranges& ranges, const std::string& next, bool escaped) {
    if (!escaped) {
        return class_of(ranges) + " " + next;
    }
    // Half characters are none; the others are written with a backslash.
    static const Ranges special = {{0x00, 0x1F}, {'"', '"'}, {'\\', '\\'}, {0xD800, 0xDFFF}};
    Ranges excluded = complement(ranges);
    excluded.insert(excluded.end(), special.begin(), special.end());
    std::vector<std::string> all;
    const Ranges plain = complement(sorted(excluded));
    if (!plain.empty()) {
        all.push_back(class_of(plain));
    }
    for (const auto& [low, high] : ranges) {
        for (uint32_t character = low; character <= std::min<uint32_t>(high, '\\'); ++character) {
            if (character < 0x20 || character == '"' || character == '\\') {
                all.push_back(escape_of(character));
            }
        }
    }
    std::string out;
    for (const std::string& one : all) {
        out += (out.empty() ? "" : " | ") + one;
    }
    if (all.size() <= 1) {
        return all.empty() ? "" : out + " " + next;
    }
    Rule& rule = classes_[out];  // many states of an automaton go on with the same
    if (rule.empty()) {
        rule = add(out);
    }
    return rule + " " + next;
}

Rule Builder::rules_of(const Automaton& automaton, bool escaped, const std::string& end) {
    const size_t first = number_;
    number_ += automaton.states.size();
    const auto name = [&](size_t state) { return prefix_ + std::to_string(first + state); };
    for (size_t i = 0; i < automaton.states.size(); ++i) {
        const Automaton::State& state = automaton.states[i];
        std::string body = state.accepting ? end : "";
        bool any = state.accepting;
        for (const auto& [ranges, target] : state.edges) {
            const std::string one = characters(ranges, name(target), escaped);
            if (!one.empty()) {
                body += (any ? " | " : "") + one;
                any = true;
            }
        }
        set(name(i), body);
    }
    return name(0);
}

Rule Builder::quoted(const Automaton& automaton) {
    return automaton.states.empty() ? "" : add(R"("\"" )" + rules_of(automaton, true, R"("\"")"));
}

Rule Builder::text(const Automaton& automaton) {
    if (!bare()) {
        return quoted(automaton);
    }
    return automaton.states.empty() ? "" : rules_of(automaton, false, R"("")");
}

Language Builder::unclosed() {
    // Without its last character: a text that ends as `closing` begins could end too early with it.
    const std::string most = closing_.substr(0, std::max<size_t>(closing_.size() - 1, 1));
    const Language found =
        languages_.concat({Languages::kAnything, languages_.text(most), Languages::kAnything});
    const Language written = languages_.repeat(languages_.chars({{1, kLastCodePoint}}), 0, kNoLimit);
    return languages_.both({written, languages_.none_of(found)});
}

Rule Builder::any_value() { return bare() ? text(languages_.automaton(unclosed())) : shared("value"); }

Rule Builder::number(Constraints* all, bool integer) {
    NumberLimits limits = all->numbers;
    limits.integer = integer;
    if (!limits.least && !limits.most && limits.divisors.empty()) {
        return shared(integer ? "whole" : "number");
    }
    std::vector<Decimal> held;
    for (const Decimal& divisor : limits.divisors) {
        const Decimal one{false, "1", ""};
        if (integer && is_multiple(one, divisor)) {
            continue;
        }
        try {
            NumberLimits alone;
            alone.divisors = {divisor};
            number_language(&languages_, alone);
            held.push_back(divisor);
        } catch (const TooLarge&) {
            warn("multipleOf at " + all->path);
        }
    }
    limits.divisors = std::move(held);
    Automaton automaton;
    try {
        automaton = languages_.automaton(number_language(&languages_, limits));
    } catch (const TooLarge&) {
        warn("multipleOf at " + all->path);
        limits.divisors.clear();
        automaton = languages_.automaton(number_language(&languages_, limits));
    }
    if (automaton.states.empty()) {
        all->why = named(
            {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf", "format"}, *all);
        return "";
    }
    return rules_of(automaton, false, R"("")");
}

/// The texts that patterns, formats and forbidden texts leave; those of them that cannot be held are told.
/// In the texts of `soon` no pattern's match begins late; `loose` are those whose match may.
Language Builder::text_language(Constraints* all, std::vector<std::string>* held, Language* soon,
                                std::vector<std::string>* loose) {
    std::vector<Language> parts;
    std::vector<Language> near;
    const auto take = [&](const std::string& pattern, const std::string& what) {
        try {
            const Language one = pattern_language(&languages_, pattern);
            languages_.automaton(one);
            near.push_back(pattern_language(&languages_, pattern, kMaxBefore));
            if (loose != nullptr && near.back() != one) {
                loose->push_back(what);
            }
            parts.push_back(one);
            held->push_back(what);
        } catch (const UnsupportedPattern& error) {
            warn(what + " (" + error.what() + ")");
        } catch (const TooLarge& error) {
            warn(what + " (" + error.what() + ")");
        }
    };
    for (const std::string& pattern : all->patterns) {
        take(pattern, "pattern " + pattern + " at " + all->path);
    }
    for (const std::string& format : all->formats) {
        take(format_pattern(format), "format \"" + format + "\" at " + all->path);
    }
    for (const std::string& text : all->not_texts) {
        parts.push_back(languages_.none_of(languages_.text(text)));
        held->push_back("not at " + all->path);
    }
    const Language language = languages_.both(parts);
    if (soon != nullptr) {
        near.push_back(language);
        *soon = languages_.both(near);
    }
    return language;
}

Rule Builder::string(Constraints* all) {
    if (all->least_length > all->most_length) {
        all->why = named({"minLength", "maxLength"}, *all);
        return "";
    }
    std::vector<std::string> held;
    std::vector<std::string> loose;
    Language soon = Languages::kAnything;
    Language language = text_language(all, &held, &soon, &loose);
    if (bare()) {
        language = languages_.both({language, unclosed()});
        soon = languages_.both({soon, unclosed()});
    }
    Automaton automaton;
    if (!held.empty() || bare()) {
        try {
            automaton = languages_.automaton(language);
        } catch (const TooLarge&) {
            for (const std::string& one : held) {
                warn(one);
            }
            held.clear();
            language = bare() ? unclosed() : Languages::kAnything;
            soon = language;
            automaton = bare() ? languages_.automaton(language) : Automaton();
        }
    }
    if (held.empty() && !bare()) {
        if (all->least_length == 0 && all->most_length == SIZE_MAX) {
            return shared("string");
        }
        return add(
            R"("\"" )" +
            repetition(shared("char"), all->least_length, all->most_length, "maxLength at " + all->path) +
            R"( "\"")");
    }
    const bool short_enough = automaton.states.empty() ||
                              (all->most_length == SIZE_MAX ||
                               (automaton.longest() != SIZE_MAX && automaton.longest() <= all->most_length));
    const bool long_enough = automaton.states.empty() || automaton.shortest() >= all->least_length;
    if (!short_enough || !long_enough) {
        const auto limit = [](size_t length) {
            return length > kNoLimit - 1 ? kNoLimit : static_cast<uint32_t>(length);
        };
        const Language lengths = languages_.repeat(languages_.chars({{0, kLastCodePoint}}),
                                                   long_enough ? 0 : limit(all->least_length),
                                                   short_enough ? kNoLimit : limit(all->most_length));
        try {
            automaton = languages_.automaton(languages_.both({language, lengths}));
            soon = languages_.both({soon, lengths});
        } catch (const TooLarge&) {
            warn(std::string(long_enough ? "" : "minLength ") + (short_enough ? "" : "maxLength ") + "at " +
                 all->path + (held.empty() ? " of a text without quotes" : " beside a pattern"));
        }
    }
    // A weak model that may write anything before a match does so until the limit of tokens.
    if (soon != language && !automaton.states.empty() &&
        copied_ + automaton.states.size() * kMaxBefore <= kMaxCopied && automaton.longest() == SIZE_MAX) {
        try {
            Automaton bounded = languages_.automaton(soon);
            if (!bounded.states.empty() && copied_ + bounded.states.size() <= kMaxCopied) {
                copied_ += bounded.states.size();
                automaton = std::move(bounded);
                for (const std::string& pattern : loose) {
                    out_.notes.push_back(one_line(pattern) + ": its match begins within " +
                                         std::to_string(kMaxBefore + 1) +
                                         " characters; maxLength beside it sets another bound");
                }
            }
        } catch (const TooLarge&) {  // then it may
        }
    }
    const Rule rule = text(automaton);
    if (rule.empty()) {
        all->why = named({"pattern", "format", "minLength", "maxLength", "not"}, *all);
    }
    return rule;
}

}  // namespace trit::schema
