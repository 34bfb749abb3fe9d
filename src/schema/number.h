// SPDX-License-Identifier: MIT
/// Numbers as JSON writes them without an exponent, as regular languages.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "schema/language.h"

namespace trit::schema {

/// A decimal number of any size, exactly.
struct Decimal {
    bool negative = false;    // never of zero
    std::string whole = "0";  // no zero in front but for "0" itself
    std::string fraction;     // no zero at the end

    /// Of a number in JSON text.
    static Decimal read(const std::string& json);

    bool is_zero() const { return whole == "0" && fraction.empty(); }
    bool is_whole() const { return fraction.empty(); }
};

/// Negative, zero or positive, as strcmp.
int compare(const Decimal& a, const Decimal& b);
bool is_multiple(const Decimal& value, const Decimal& divisor);

struct NumberLimits {
    bool integer = false;
    std::optional<Decimal> least;
    std::optional<Decimal> most;
    bool above_least = false;  // the bound itself is left out
    bool below_most = false;
    std::vector<Decimal> divisors;  // positive
};

/// At most 16 digits in front of the point and behind it, or one more than a bound has. Throws TooLarge where
/// a divisor has more than three digits that count.
Language number_language(Languages* languages, const NumberLimits& limits);

}  // namespace trit::schema
