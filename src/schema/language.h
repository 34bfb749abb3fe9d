// SPDX-License-Identifier: MIT
/// Regular languages over code points, as expressions with derivatives: what is left of a language behind a
/// character is another expression. So intersection and complement cost no more than a choice, and a
/// deterministic automaton falls out of it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace trit::schema {

/// Code points, both ends included; sorted, without overlap.
using Ranges = std::vector<std::pair<uint32_t, uint32_t>>;

constexpr uint32_t kLastCodePoint = 0x10FFFF;

Ranges sorted(Ranges ranges);
Ranges complement(const Ranges& ranges);
std::vector<uint32_t> code_points(const std::string& utf8);

/// A language takes more work or states than one schema may ask for.
struct TooLarge : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Automaton {
    struct State {
        bool accepting = false;
        std::vector<std::pair<Ranges, size_t>> edges;  // to states, disjoint
    };
    std::vector<State>
        states;  // the first is the start; each leads to an accepting one; none: no text at all

    size_t shortest() const;
    /// The length of the longest text, or SIZE_MAX where there is none.
    size_t longest() const;
};

using Language = uint32_t;  // equal expressions have equal numbers

constexpr uint32_t kNoLimit = UINT32_MAX;

class Languages {
 public:
    static constexpr Language kNothing = 0;   // no text
    static constexpr Language kEmpty = 1;     // the text without a character
    static constexpr Language kAnything = 2;  // every text

    Languages();

    Language chars(const Ranges& ranges);
    Language text(const std::string& utf8);
    Language concat(Language first, Language second);
    Language concat(const std::vector<Language>& parts);
    Language either(const std::vector<Language>& parts);
    Language both(const std::vector<Language>& parts);
    Language none_of(Language language);
    Language repeat(Language language, uint32_t least, uint32_t most);
    /// Digits with a decimal point whose value times 10^scale is a multiple of `divisor`.
    Language multiples(uint32_t divisor, uint32_t scale);

    bool accepts_empty(Language language);
    bool accepts(Language language, const std::string& utf8);
    /// Throws TooLarge beyond kMaxStates.
    Automaton automaton(Language language);
    /// Count work; throws TooLarge beyond what one schema may take.
    void take(size_t work);

 private:
    enum class Kind : uint8_t { chars, concat, either, both, none_of, repeat, multiples, constant };

    using Key = std::tuple<Kind, Ranges, std::vector<Language>, std::array<uint32_t, 4>>;

    static constexpr size_t kMaxStates = 8192;
    static constexpr size_t kMaxWork = 3u << 20;  // of one schema: about a second

    std::vector<const Key*> nodes_;
    std::vector<bool> accepts_empty_;
    std::map<Key, Language> ids_;
    std::map<std::pair<Language, uint32_t>, Language> after_;
    size_t work_ = 0;

    Language add(Kind kind, Ranges ranges, std::vector<Language> parts, std::array<uint32_t, 4> numbers);
    Language combine(Kind kind, const std::vector<Language>& parts, Language neutral, Language absorbing);
    Language after(Language language, uint32_t character);
    Language after_digit(const std::array<uint32_t, 4>& numbers, uint32_t character);
    std::vector<uint32_t> boundaries(Language language) const;
};

}  // namespace trit::schema
