// SPDX-License-Identifier: MIT
#include "schema/pattern.h"

#include <algorithm>
#include <optional>

namespace trit::schema {
namespace {

constexpr int kMaxNesting = 100;
constexpr size_t kMaxPattern = 8192;  // characters
constexpr uint32_t kMaxUnrolled = 8;  // repetitions of a group that looks ahead or at an end

const Ranges kDigits = {{'0', '9'}};
const Ranges kWords = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const Ranges kSpaces = {{0x09, 0x0D},     {0x20, 0x20},     {0xA0, 0xA0},     {0x1680, 0x1680},
                        {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                        {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
const Ranges kLineEnds = {{0x0A, 0x0A}, {0x0D, 0x0D}, {0x2028, 0x2029}};

struct Piece {
    enum Kind : uint8_t { chars, sequence, choice, repeat, start, end, ahead, not_ahead };
    Kind kind = sequence;
    Ranges ranges = {};
    std::vector<Piece> parts = {};
    uint32_t least = 0;
    uint32_t most = 0;
};

bool looks(const Piece& piece) {
    return piece.kind >= Piece::start || std::any_of(piece.parts.begin(), piece.parts.end(), looks);
}

/// The fewest characters that a piece takes, up to one.
bool takes_any(const Piece& piece) {
    switch (piece.kind) {
        case Piece::chars:
            return true;
        case Piece::sequence:
            return std::any_of(piece.parts.begin(), piece.parts.end(), takes_any);
        case Piece::choice:
            return std::all_of(piece.parts.begin(), piece.parts.end(), takes_any);
        case Piece::repeat:
            return piece.least > 0 && takes_any(piece.parts[0]);
        default:
            return false;
    }
}

bool takes_none(const Piece& piece) {
    return piece.kind >= Piece::start ||
           (piece.kind != Piece::chars && std::all_of(piece.parts.begin(), piece.parts.end(), takes_none));
}

class Reader {
 public:
    explicit Reader(const std::string& pattern) : text_(code_points(pattern)) {
        if (text_.size() > kMaxPattern) {
            throw TooLarge("it has more than " + std::to_string(kMaxPattern) + " characters");
        }
    }

    Piece read() {
        Piece all = choice();
        if (!done()) {
            throw InvalidPattern("a parenthesis that nothing opens");
        }
        return all;
    }

 private:
    std::vector<uint32_t> text_;
    size_t at_ = 0;
    int depth_ = 0;

    bool done() const { return at_ >= text_.size(); }
    uint32_t peek(size_t ahead = 0) const {
        return at_ + ahead < text_.size() ? text_[at_ + ahead] : UINT32_MAX;
    }
    bool take(uint32_t character) {
        const bool found = peek() == character;
        at_ += found;
        return found;
    }
    bool take(const char* word) {
        size_t length = 0;
        for (; word[length] != 0; ++length) {
            if (peek(length) != static_cast<uint32_t>(word[length])) {
                return false;
            }
        }
        at_ += length;
        return true;
    }

    Piece choice() {
        std::vector<Piece> parts;
        do {
            parts.push_back(sequence());
        } while (take('|'));
        return parts.size() == 1 ? std::move(parts[0]) : Piece{Piece::choice, {}, std::move(parts)};
    }

    Piece sequence() {
        Piece all;
        while (!done() && peek() != '|' && peek() != ')') {
            all.parts.push_back(repeated());
        }
        return all;
    }

    Piece repeated() {
        Piece piece = one();
        uint32_t least = 0;
        uint32_t most = kNoLimit;
        if (!quantifier(&least, &most)) {
            return piece;
        }
        if (piece.kind >= Piece::start) {
            throw InvalidPattern("nothing to repeat");
        }
        take('?');  // a lazy quantifier takes the same texts
        uint32_t again = 0;
        if (peek() == '+' || quantifier(&again, &again)) {
            throw InvalidPattern("a quantifier behind a quantifier");
        }
        return {Piece::repeat, {}, {std::move(piece)}, least, most};
    }

    bool quantifier(uint32_t* least, uint32_t* most) {
        if (take('*')) {
            return true;
        }
        if (take('+')) {
            *least = 1;
            return true;
        }
        if (take('?')) {
            *most = 1;
            return true;
        }
        const size_t start = at_;
        if (!take('{')) {
            return false;
        }
        const std::optional<uint32_t> low = number();
        const bool open = take(',');
        const std::optional<uint32_t> high = open ? number() : low;
        if (!take('}') || (!low && !high)) {
            at_ = start;  // braces without numbers stand for themselves
            return false;
        }
        if (!low) {
            throw UnsupportedPattern("dialects differ about {,n}");
        }
        *least = *low;
        *most = high.value_or(kNoLimit);
        if (*most < *least) {
            throw InvalidPattern("the least number of repetitions is greater than the most");
        }
        return true;
    }

    std::optional<uint32_t> number() {
        if (peek() < '0' || peek() > '9') {
            return {};
        }
        uint64_t value = 0;
        while (peek() >= '0' && peek() <= '9') {
            value = std::min<uint64_t>(value * 10 + (peek() - '0'), kNoLimit - 1);
            ++at_;
        }
        return static_cast<uint32_t>(value);
    }

    Piece one() {
        const uint32_t character = peek();
        if (character == '(') {
            return group();
        }
        if (character == '[') {
            return {Piece::chars, bracket()};
        }
        if (character == '*' || character == '+' || character == '?') {
            throw InvalidPattern("nothing to repeat");
        }
        if (character == '{') {
            uint32_t ignored = 0;
            if (quantifier(&ignored, &ignored)) {
                throw InvalidPattern("nothing to repeat");
            }
        }
        if (character == '\\') {
            return {Piece::chars, escape(false)};
        }
        ++at_;
        switch (character) {
            case '^':
                return {Piece::start};
            case '$':
                return {Piece::end};
            case '.':
                return {Piece::chars, complement(kLineEnds)};
            default:
                return {Piece::chars, {{character, character}}};
        }
    }

    Piece group() {
        ++at_;
        if (++depth_ > kMaxNesting) {
            throw TooLarge("it is nested deeper than " + std::to_string(kMaxNesting) + " levels");
        }
        Piece::Kind kind = Piece::sequence;
        if (take("?=")) {
            kind = Piece::ahead;
        } else if (take("?!")) {
            kind = Piece::not_ahead;
        } else if (take("?<=") || take("?<!")) {
            throw UnsupportedPattern("it looks behind");
        } else if (take("?<") || take("?P<")) {
            while (!done() && !take('>')) {
                ++at_;
            }
        } else if (!take("?:") && peek() == '?') {
            throw UnsupportedPattern("a group begins with what is not known");
        }
        Piece inner = choice();
        if (!take(')')) {
            throw InvalidPattern("a parenthesis that nothing closes");
        }
        --depth_;
        return {kind, {}, {std::move(inner)}};
    }

    Ranges bracket() {
        ++at_;
        const bool negated = take('^');
        Ranges all;
        bool first = true;
        for (; peek() != ']' || first; first = false) {
            if (done() || peek() == ']') {
                throw InvalidPattern("a class of characters that is empty or not closed");
            }
            Ranges part = member();
            if (peek() == '-' && peek(1) != ']' && peek(1) != UINT32_MAX) {
                ++at_;
                const Ranges high = member();
                if (part.size() != 1 || high.size() != 1 || part[0].first != part[0].second ||
                    high[0].first != high[0].second) {
                    throw UnsupportedPattern("a range up to a class of characters");
                }
                if (high[0].first < part[0].first) {
                    throw InvalidPattern("a range of characters is out of order");
                }
                part[0].second = high[0].second;
            }
            all.insert(all.end(), part.begin(), part.end());
        }
        ++at_;
        return negated ? complement(sorted(all)) : sorted(all);
    }

    Ranges member() {
        if (peek() == '\\') {
            return escape(true);
        }
        const uint32_t character = peek();
        ++at_;
        return {{character, character}};
    }

    Ranges escape(bool in_class) {
        ++at_;
        if (done()) {
            throw InvalidPattern("a backslash at the end");
        }
        const uint32_t letter = peek();
        ++at_;
        switch (letter) {
            case 'd':
                return kDigits;
            case 'D':
                return complement(kDigits);
            case 'w':
                return kWords;
            case 'W':
                return complement(kWords);
            case 's':
                return kSpaces;
            case 'S':
                return complement(kSpaces);
            case 'f':
                return {{'\f', '\f'}};
            case 'n':
                return {{'\n', '\n'}};
            case 'r':
                return {{'\r', '\r'}};
            case 't':
                return {{'\t', '\t'}};
            case 'v':
                return {{'\v', '\v'}};
            case 'x':
                return hexadecimal(2);
            case 'u':
                return take('{') ? braced() : hexadecimal(4);
            case 'b':
                if (in_class) {
                    return {{'\b', '\b'}};
                }
                break;
            case '0':
                if (peek() < '0' || peek() > '9') {
                    return {{0, 0}};
                }
                break;
            default:
                if (letter > 0x7F || !((letter >= '0' && letter <= '9') || (letter >= 'a' && letter <= 'z') ||
                                       (letter >= 'A' && letter <= 'Z'))) {
                    return {{letter, letter}};
                }
        }
        throw UnsupportedPattern(std::string("\\") + static_cast<char>(letter) + " is not known");
    }

    Ranges hexadecimal(int digits) {
        uint32_t value = 0;
        for (int i = 0; i < digits; ++i) {
            value = value * 16 + hex_digit();
        }
        if (value >= 0xD800 && value <= 0xDFFF) {
            throw UnsupportedPattern("half of a character");
        }
        return {{value, value}};
    }

    Ranges braced() {
        uint32_t value = 0;
        do {
            value = value * 16 + hex_digit();
            if (value > kLastCodePoint) {
                throw InvalidPattern("a character beyond the last");
            }
        } while (!take('}'));
        return {{value, value}};
    }

    uint32_t hex_digit() {
        const uint32_t letter = peek();
        ++at_;
        if (letter >= '0' && letter <= '9') {
            return letter - '0';
        }
        const uint32_t lower = letter | 0x20;
        if (letter > 0x7F || lower < 'a' || lower > 'f') {
            throw UnsupportedPattern("a number of a character that is not complete");
        }
        return lower - 'a' + 10;
    }
};

enum class Place : uint8_t { at_start, behind, unknown };

/// The language of a piece and of what follows it; what looks around narrows what follows.
Language followed(Languages* languages, const Piece& piece, Language rest, Place place) {
    switch (piece.kind) {
        case Piece::chars:
            return languages->concat(languages->chars(piece.ranges), rest);
        case Piece::start:
            if (place == Place::unknown) {
                throw UnsupportedPattern("^ behind what may be empty");
            }
            return place == Place::at_start ? rest : Languages::kNothing;
        case Piece::end:
            return languages->both({rest, Languages::kEmpty});
        case Piece::ahead:
        case Piece::not_ahead: {
            const Language seen = followed(languages, piece.parts[0], Languages::kAnything, place);
            return languages->both({rest, piece.kind == Piece::ahead ? seen : languages->none_of(seen)});
        }
        case Piece::choice: {
            std::vector<Language> all;
            for (const Piece& part : piece.parts) {
                all.push_back(followed(languages, part, rest, place));
            }
            return languages->either(all);
        }
        case Piece::repeat: {
            const Piece& inner = piece.parts[0];
            if (!looks(inner)) {
                const Language once = followed(languages, inner, Languages::kEmpty, Place::unknown);
                return languages->concat(languages->repeat(once, piece.least, piece.most), rest);
            }
            if (piece.most > kMaxUnrolled) {
                throw UnsupportedPattern("a repeated group that looks at what is around it");
            }
            Language all = rest;
            for (uint32_t i = piece.most; i > 0; --i) {
                const Place inside = i == 1 ? place : takes_any(inner) ? Place::behind : Place::unknown;
                const Language more = followed(languages, inner, all, inside);
                all = i - 1 >= piece.least ? languages->either({rest, more}) : more;
            }
            return all;
        }
        case Piece::sequence:
            break;
    }
    std::vector<Place> places;
    for (const Piece& part : piece.parts) {
        places.push_back(place);
        if (takes_any(part)) {
            place = Place::behind;
        } else if (!takes_none(part) && place == Place::at_start) {
            place = Place::unknown;
        }
    }
    for (size_t i = piece.parts.size(); i-- > 0;) {
        rest = followed(languages, piece.parts[i], rest, places[i]);
    }
    return rest;
}

}  // namespace

Language pattern_language(Languages* languages, const std::string& pattern, uint32_t before) {
    const Piece piece = Reader(pattern).read();
    const Language some = languages->repeat(languages->chars({{0, kLastCodePoint}}), 1, before);
    return languages->either(
        {followed(languages, piece, Languages::kAnything, Place::at_start),
         languages->concat(some, followed(languages, piece, Languages::kAnything, Place::behind))});
}

}  // namespace trit::schema
