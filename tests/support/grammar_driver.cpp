// SPDX-License-Identifier: MIT
/// Reads requests from stdin, a JSON object a line, and answers each with one: what the engine's own grammar
/// of a schema accepts, and texts that it makes.
///
///     {"schema": {...}, "texts": ["..."], "samples": 3, "seed": 1, "closing": ""}
///     {"accepted": [true], "made": ["..."], "warnings": [], "notes": [], "bytes": 99, "seconds": 0.01}
///     {"error": "..."}
///     {"grammar": "root ::= ...", "tokens": [["c3", "a9"]]}    tokens of hexadecimal bytes
///     {"taken": [true]}
///
/// Seconds are those of the CPU that the conversion took.
/// A text that is not done after 4000 characters is null. One behind which nothing can come is {"failed":
/// "..."}.
#include <ctime>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "llama-grammar.h"
#include "schema/language.h"
#include "schema/schema.h"

namespace {

using Json = nlohmann::ordered_json;

struct Free {
    void operator()(llama_grammar* grammar) const { llama_grammar_free_impl(grammar); }
};
using Held = std::unique_ptr<llama_grammar, Free>;

bool may_end(llama_grammar* grammar) {
    for (const auto& stack : llama_grammar_get_stacks(grammar)) {
        if (stack.empty()) {
            return true;
        }
    }
    return false;
}

bool accepts(const llama_grammar& grammar, const std::string& text) {
    const Held walk(llama_grammar_clone_impl(grammar));
    for (const uint32_t character : trit::schema::code_points(text)) {
        llama_grammar_accept(walk.get(), character);
        if (llama_grammar_get_stacks(walk.get()).empty()) {
            return false;
        }
    }
    return may_end(walk.get());
}

std::string utf8(uint32_t character) {
    std::string out;
    if (character < 0x80) {
        out = {static_cast<char>(character)};
    } else if (character < 0x800) {
        out = {static_cast<char>(0xC0 | character >> 6), static_cast<char>(0x80 | (character & 0x3F))};
    } else if (character < 0x10000) {
        out = {static_cast<char>(0xE0 | character >> 12), static_cast<char>(0x80 | (character >> 6 & 0x3F)),
               static_cast<char>(0x80 | (character & 0x3F))};
    } else {
        out = {static_cast<char>(0xF0 | character >> 18), static_cast<char>(0x80 | (character >> 12 & 0x3F)),
               static_cast<char>(0x80 | (character >> 6 & 0x3F)),
               static_cast<char>(0x80 | (character & 0x3F))};
    }
    return out;
}

/// A character that an element of the grammar takes, most often an end of a range.
uint32_t character_of(const llama_grammar_element* element, std::mt19937* random) {
    std::vector<std::pair<uint32_t, uint32_t>> ranges;
    const bool no = element->type == LLAMA_GRETYPE_CHAR_NOT;
    for (; element->type != LLAMA_GRETYPE_END && element->type != LLAMA_GRETYPE_ALT; ++element) {
        if (element->type == LLAMA_GRETYPE_CHAR_RNG_UPPER) {
            ranges.back().second = element->value;
        } else if (!ranges.empty() && element->type != LLAMA_GRETYPE_CHAR_ALT) {
            break;
        } else {
            ranges.emplace_back(element->value, element->value);
        }
    }
    if (no) {
        constexpr char kLetters[] = "ab1Z -.:/@x";
        return static_cast<uint8_t>(kLetters[(*random)() % (sizeof kLetters - 1)]);
    }
    const auto [low, high] = ranges[(*random)() % ranges.size()];
    return (*random)() % 3 == 0 ? low : low + (*random)() % (high - low + 1);
}

Json made(const llama_grammar& grammar, std::mt19937* random) {
    const Held walk(llama_grammar_clone_impl(grammar));
    std::string text;
    for (int length = 0; length < 4000; ++length) {
        const auto& stacks = llama_grammar_get_stacks(walk.get());
        if (stacks.empty()) {
            throw std::runtime_error("nothing can follow " + text);
        }
        const auto& stack = stacks[(*random)() % stacks.size()];
        if (stack.empty()) {
            return text;
        }
        const uint32_t character = character_of(stack.back(), random);
        text += utf8(character);
        llama_grammar_accept(walk.get(), character);
    }
    return nullptr;
}

/// Whether the grammar takes one token behind the other.
bool takes(const llama_grammar& grammar, const Json& tokens) {
    const Held walk(llama_grammar_clone_impl(grammar));
    try {
        for (const Json& token : tokens) {
            std::string piece;
            const std::string digits = token.get<std::string>();
            for (size_t i = 0; i + 1 < digits.size(); i += 2) {
                piece += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
            }
            llama_grammar_accept_str(*walk, piece);
        }
    } catch (const std::exception&) {
        return false;
    }
    return true;
}

Json answer_in_bytes(const Json& request) {
    const std::string gbnf = request.at("grammar").get<std::string>();
    const Held held(llama_grammar_init_impl(nullptr, gbnf.c_str(), "root", false, nullptr, 0, nullptr, 0));
    if (!held) {
        return {{"failed", gbnf}};
    }
    Json taken = Json::array();
    for (const Json& tokens : request.at("tokens")) {
        taken.push_back(takes(*held, tokens));
    }
    return {{"taken", taken}};
}

Json answer(const Json& request) {
    if (request.contains("grammar")) {
        return answer_in_bytes(request);
    }
    const std::clock_t begun = std::clock();
    const std::string text = request.at("schema").dump();
    const auto grammar = trit::schema::grammar_of(text, text, "r", request.value("closing", std::string()));
    const std::string gbnf = grammar.gbnf();
    const double seconds = static_cast<double>(std::clock() - begun) / CLOCKS_PER_SEC;
    const Held held(llama_grammar_init_impl(nullptr, gbnf.c_str(), "root", false, nullptr, 0, nullptr, 0));
    if (!held) {
        return {{"failed", gbnf.substr(0, 2000)}};
    }
    Json accepted = Json::array();
    for (const Json& one : request.value("texts", Json::array())) {
        accepted.push_back(accepts(*held, one.get<std::string>()));
    }
    std::mt19937 random(request.value("seed", 1u));
    Json samples = Json::array();
    for (int i = 0; i < request.value("samples", 0); ++i) {
        samples.push_back(made(*held, &random));
    }
    return {{"accepted", accepted},   {"made", samples},      {"warnings", grammar.warnings},
            {"notes", grammar.notes}, {"bytes", gbnf.size()}, {"seconds", seconds}};
}

}  // namespace

int main() {
    for (std::string line; std::getline(std::cin, line);) {
        Json said;
        try {
            said = answer(Json::parse(line));
        } catch (const std::invalid_argument& error) {
            said = {{"error", error.what()}};
        } catch (const std::exception& error) {
            said = {{"failed", error.what()}};
        }
        std::cout << said.dump(-1, ' ', true, Json::error_handler_t::replace) << std::endl;
    }
    return 0;
}
