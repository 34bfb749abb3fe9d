// SPDX-License-Identifier: MIT
#include "schema/number.h"

#include <algorithm>
#include <cstdlib>

namespace trit::schema {
namespace {

constexpr size_t kDoubleDigits = 16;  // what a double holds
constexpr size_t kFewDigits = 7;

/// Numbers of one form: with or without a fraction, and what bounds make of them.
class Writer {
 public:
    explicit Writer(Languages* languages) : languages_(*languages) {}

    Language digits(char from, char to) {
        return from > to ? Languages::kNothing
                         : languages_.chars({{static_cast<uint32_t>(from), static_cast<uint32_t>(to)}});
    }
    Language digits(size_t least, size_t most = kNoLimit) {
        return languages_.repeat(digits('0', '9'), static_cast<uint32_t>(least), static_cast<uint32_t>(most));
    }
    Language digit(char which) { return digits(which, which); }
    Language optional(Language language) { return languages_.either({Languages::kEmpty, language}); }
    Language fraction() { return optional(languages_.concat(languages_.text("."), digits(1))); }
    Language minus() { return languages_.text("-"); }

    /// Magnitudes of at least this one, or above it.
    Language at_least(const Decimal& bound, bool above) {
        const std::string& whole = bound.whole;
        const size_t length = whole.size();
        Language equal = fraction_at_least(bound.fraction, above);
        for (size_t i = length; i-- > 0;) {
            const Language greater =
                whole[i] == '9' ? Languages::kNothing : digits(static_cast<char>(whole[i] + 1), '9');
            equal = languages_.either(
                {languages_.concat({greater, digits(length - 1 - i, length - 1 - i), fraction()}),
                 languages_.concat(digit(whole[i]), equal)});
        }
        return languages_.either({languages_.concat({digits('1', '9'), digits(length), fraction()}), equal});
    }

    /// Magnitudes of at most this one, or below it.
    Language at_most(const Decimal& bound, bool below) {
        const std::string& whole = bound.whole;
        const size_t length = whole.size();
        Language equal = fraction_at_most(bound.fraction, below);
        for (size_t i = length; i-- > 0;) {
            const char first = i == 0 && length > 1 ? '1' : '0';
            const Language smaller =
                whole[i] == '0' ? Languages::kNothing : digits(first, static_cast<char>(whole[i] - 1));
            equal = languages_.either(
                {languages_.concat({smaller, digits(length - 1 - i, length - 1 - i), fraction()}),
                 languages_.concat(digit(whole[i]), equal)});
        }
        if (length == 1) {
            return equal;
        }
        return languages_.either({languages_.concat(digit('0'), fraction()),
                                  languages_.concat({digits('1', '9'), digits(0, length - 2), fraction()}),
                                  equal});
    }

 private:
    Languages& languages_;

    Language fraction_at_least(const std::string& bound, bool above) {
        if (bound.empty() && !above) {
            return fraction();
        }
        Language tail = above ? languages_.concat({digits(0), digits('1', '9'), digits(0)}) : digits(0);
        for (auto place = bound.rbegin(); place != bound.rend(); ++place) {
            const Language greater =
                *place == '9' ? Languages::kNothing : digits(static_cast<char>(*place + 1), '9');
            tail = languages_.either(
                {languages_.concat(greater, digits(0)), languages_.concat(digit(*place), tail)});
        }
        return languages_.concat(languages_.text("."), tail);
    }

    Language fraction_at_most(const std::string& bound, bool below) {
        const Language zeros = languages_.repeat(digit('0'), 0, kNoLimit);
        if (bound.empty()) {
            return below ? Languages::kNothing
                         : optional(languages_.concat({languages_.text("."), digit('0'), zeros}));
        }
        Language tail = below ? Languages::kNothing : zeros;
        for (size_t i = bound.size(); i-- > 0;) {
            const Language smaller =
                bound[i] == '0' ? Languages::kNothing : digits('0', static_cast<char>(bound[i] - 1));
            tail = languages_.either(
                {languages_.concat(smaller, digits(0)), languages_.concat(digit(bound[i]), tail)});
            if (i > 0) {  // fewer digits are a smaller number
                tail = optional(tail);
            }
        }
        return optional(languages_.concat(languages_.text("."), tail));
    }
};

Language multiples_of(Languages* languages, Writer* writer, const Decimal& divisor) {
    std::string counted = divisor.whole == "0" ? divisor.fraction : divisor.whole + divisor.fraction;
    counted.erase(0, std::min(counted.find_first_not_of('0'), counted.size()));
    const size_t zeros = counted.size() - 1 - counted.find_last_not_of('0');
    const std::string leading = counted.substr(0, counted.size() - zeros);
    if (leading.size() > 3 || divisor.fraction.size() > kDoubleDigits || zeros > 308) {
        throw TooLarge("its digits are too many");
    }
    const auto scale = static_cast<uint32_t>(divisor.fraction.size());
    const auto number = static_cast<uint32_t>(std::atoi(leading.c_str()));
    Language all = languages->multiples(number, scale);
    if (zeros > 0) {
        const auto count = static_cast<uint32_t>(zeros);
        const Language nought = writer->digit('0');
        const Language fraction =
            writer->optional(languages->concat(languages->text("."), languages->repeat(nought, 1, kNoLimit)));
        const Language prefix = languages->both({languages->multiples(number, 0), writer->digits(1)});
        all = languages->concat(
            languages->either({nought, languages->concat(prefix, languages->repeat(nought, count, count))}),
            fraction);
    }
    return languages->concat(writer->optional(writer->minus()), all);
}

std::string without(std::string text, bool front) {
    if (front) {
        text.erase(0, std::min(text.find_first_not_of('0'), text.size()));
        return text.empty() ? "0" : text;
    }
    text.erase(text.find_last_not_of('0') + 1);
    return text;
}

}  // namespace

Decimal Decimal::read(const std::string& json) {
    Decimal out;
    const size_t start = json[0] == '-' ? 1 : 0;
    const size_t letter = std::min(json.find_first_of("eE"), json.size());
    const long exponent = letter < json.size() ? std::atol(json.c_str() + letter + 1) : 0;
    const size_t point = std::min(json.find('.'), letter);
    std::string whole = json.substr(start, point - start);
    std::string fraction = point < letter ? json.substr(point + 1, letter - point - 1) : "";
    for (long i = 0; i < exponent; ++i) {
        whole += fraction.empty() ? '0' : fraction[0];
        fraction.erase(0, 1);
    }
    for (long i = exponent; i < 0; ++i) {
        fraction.insert(fraction.begin(), whole.empty() ? '0' : whole.back());
        whole.resize(whole.empty() ? 0 : whole.size() - 1);
    }
    out.whole = without(whole, true);
    out.fraction = without(fraction, false);
    out.negative = start == 1 && !out.is_zero();
    return out;
}

int compare(const Decimal& a, const Decimal& b) {
    if (a.negative != b.negative) {
        return a.negative ? -1 : 1;
    }
    int order = 0;
    if (a.whole.size() != b.whole.size()) {
        order = a.whole.size() < b.whole.size() ? -1 : 1;
    } else if (a.whole != b.whole) {
        order = a.whole < b.whole ? -1 : 1;
    } else if (a.fraction != b.fraction) {
        order = a.fraction < b.fraction ? -1 : 1;
    }
    return a.negative ? -order : order;
}

bool is_multiple(const Decimal& value, const Decimal& divisor) {
    // Long division of the digits, both scaled to whole numbers.
    const size_t scale = std::max(value.fraction.size(), divisor.fraction.size());
    const auto scaled = [scale](const Decimal& number) {
        return without(number.whole + number.fraction + std::string(scale - number.fraction.size(), '0'),
                       true);
    };
    const Decimal by{false, scaled(divisor), ""};
    Decimal rest;
    for (const char digit : scaled(value)) {
        rest.whole = without(rest.whole + digit, true);
        while (compare(rest, by) >= 0) {
            int borrow = 0;
            const std::string less(rest.whole.size() - by.whole.size(), '0');
            const std::string subtracted = less + by.whole;
            for (size_t i = rest.whole.size(); i-- > 0;) {
                int left = rest.whole[i] - subtracted[i] - borrow;
                borrow = left < 0 ? 1 : 0;
                left += borrow * 10;
                rest.whole[i] = static_cast<char>('0' + left);
            }
            rest.whole = without(rest.whole, true);
        }
    }
    return rest.is_zero();
}

Language number_language(Languages* languages, const NumberLimits& limits) {
    Writer writer(languages);
    size_t whole = kDoubleDigits;
    size_t fraction = kDoubleDigits;
    std::vector<Language> all;
    const Language sign = writer.optional(writer.minus());
    const Decimal zero;
    if (limits.least) {
        const Decimal& bound = *limits.least;
        whole = std::max(whole, bound.whole.size() + 1);
        fraction = std::max(fraction, bound.fraction.size() + 1);
        if (bound.negative) {
            all.push_back(languages->either(
                {writer.at_least(zero, false),
                 languages->concat(writer.minus(), writer.at_most(bound, limits.above_least))}));
        } else {
            const bool minus_zero = bound.is_zero() && !limits.above_least;
            all.push_back(
                languages->either({writer.at_least(bound, limits.above_least),
                                   minus_zero ? languages->concat(writer.minus(), writer.at_most(zero, false))
                                              : Languages::kNothing}));
        }
    }
    if (limits.most) {
        const Decimal& bound = *limits.most;
        whole = std::max(whole, bound.whole.size() + 1);
        fraction = std::max(fraction, bound.fraction.size() + 1);
        if (bound.negative) {
            all.push_back(languages->concat(writer.minus(), writer.at_least(bound, limits.below_most)));
        } else {
            const bool no_zero = bound.is_zero() && limits.below_most;
            all.push_back(
                languages->either({writer.at_most(bound, limits.below_most),
                                   languages->concat(writer.minus(), writer.at_least(zero, no_zero))}));
        }
    }
    for (const Decimal& divisor : limits.divisors) {
        fraction = std::max(fraction, divisor.fraction.size());
        // A state for each rest and number of digits: large divisors get fewer digits.
        const size_t rests = without(without(divisor.whole + divisor.fraction, true), false).size();
        whole = limits.least || limits.most || rests < 3 ? whole : kFewDigits;
        all.push_back(multiples_of(languages, &writer, divisor));
    }
    const Language digits = languages->either(
        {writer.digit('0'), languages->concat(writer.digits('1', '9'), writer.digits(0, whole - 1))});
    const Language behind =
        limits.integer ? Languages::kEmpty
                       : writer.optional(languages->concat(languages->text("."), writer.digits(1, fraction)));
    all.push_back(languages->concat({sign, digits, behind}));
    return languages->both(all);
}

}  // namespace trit::schema
