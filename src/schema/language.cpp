// SPDX-License-Identifier: MIT
#include "schema/language.h"

#include <algorithm>
#include <deque>
#include <set>
#include <unordered_map>

namespace trit::schema {

Ranges sorted(Ranges ranges) {
    std::sort(ranges.begin(), ranges.end());
    Ranges out;
    for (const auto& [low, high] : ranges) {
        if (!out.empty() && low <= out.back().second + 1) {
            out.back().second = std::max(out.back().second, high);
        } else {
            out.emplace_back(low, high);
        }
    }
    return out;
}

Ranges complement(const Ranges& ranges) {
    Ranges out;
    uint32_t next = 0;
    for (const auto& [low, high] : ranges) {
        if (low > next) {
            out.emplace_back(next, low - 1);
        }
        next = high + 1;
    }
    if (next <= kLastCodePoint) {
        out.emplace_back(next, kLastCodePoint);
    }
    return out;
}

std::vector<uint32_t> code_points(const std::string& utf8) {
    std::vector<uint32_t> out;
    for (const char letter : utf8) {  // parsed JSON is well-formed UTF-8
        const auto byte = static_cast<uint8_t>(letter);
        if ((byte & 0xC0) != 0x80) {
            out.push_back(byte < 0x80   ? byte
                          : byte < 0xE0 ? byte & 0x1Fu
                          : byte < 0xF0 ? byte & 0x0Fu
                                        : byte & 7u);
        } else if (!out.empty()) {
            out.back() = out.back() << 6 | (byte & 0x3Fu);
        }
    }
    return out;
}

size_t Automaton::shortest() const {
    std::vector<size_t> distance(states.size(), SIZE_MAX);
    std::deque<size_t> queue{0};
    distance.at(0) = 0;
    while (true) {  // every state leads to an accepting one
        const size_t here = queue.front();
        queue.pop_front();
        if (states[here].accepting) {
            return distance[here];
        }
        for (const auto& edge : states[here].edges) {
            if (distance[edge.second] == SIZE_MAX) {
                distance[edge.second] = distance[here] + 1;
                queue.push_back(edge.second);
            }
        }
    }
}

size_t Automaton::longest() const {
    std::vector<size_t> arriving(states.size(), 0);
    for (const State& state : states) {
        for (const auto& edge : state.edges) {
            ++arriving[edge.second];
        }
    }
    if (arriving.at(0) > 0) {
        return SIZE_MAX;
    }
    std::vector<size_t> distance(states.size(), 0);
    std::vector<size_t> ready{0};
    size_t seen = 0;
    size_t most = 0;
    while (!ready.empty()) {  // a topological order exists where nothing repeats
        const size_t here = ready.back();
        ready.pop_back();
        ++seen;
        most = std::max(most, distance[here]);
        for (const auto& edge : states[here].edges) {
            distance[edge.second] = std::max(distance[edge.second], distance[here] + 1);
            if (--arriving[edge.second] == 0) {
                ready.push_back(edge.second);
            }
        }
    }
    return seen < states.size() ? SIZE_MAX : most;
}

Languages::Languages() {
    add(Kind::constant, {}, {}, {kNothing});
    add(Kind::constant, {}, {}, {kEmpty});
    add(Kind::none_of, {}, {kNothing}, {});
}

void Languages::take(size_t work) {
    work_ += work;
    if (work_ > kMaxWork) {
        throw TooLarge("it takes too many steps");
    }
}

Language Languages::add(Kind kind, Ranges ranges, std::vector<Language> parts,
                        std::array<uint32_t, 4> numbers) {
    take(1 + ranges.size() + parts.size());
    const auto [place, is_new] =
        ids_.emplace(Key(kind, std::move(ranges), std::move(parts), numbers), nodes_.size());
    if (is_new) {
        nodes_.push_back(&place->first);
        const std::vector<Language>& inner = std::get<2>(place->first);
        const auto empty = [&](Language part) { return accepts_empty_[part]; };
        bool value = false;
        switch (kind) {
            case Kind::chars:
                break;
            case Kind::constant:
                value = numbers[0] == kEmpty;
                break;
            case Kind::concat:
            case Kind::both:
                value = std::all_of(inner.begin(), inner.end(), empty);
                break;
            case Kind::either:
                value = std::any_of(inner.begin(), inner.end(), empty);
                break;
            case Kind::none_of:
                value = !empty(inner[0]);
                break;
            case Kind::repeat:
                value = numbers[0] == 0;
                break;
            case Kind::multiples: {
                // Digits that do not stand behind the point are zeros.
                uint64_t rest = numbers[2];
                for (uint32_t i = numbers[3] == 0 ? 0 : numbers[3] - 1; i < numbers[1]; ++i) {
                    rest = rest * 10 % numbers[0];
                }
                value = rest == 0;
                break;
            }
        }
        accepts_empty_.push_back(value);
    }
    return place->second;
}

Language Languages::chars(const Ranges& ranges) {
    return ranges.empty() ? kNothing : add(Kind::chars, ranges, {}, {});
}

Language Languages::text(const std::string& utf8) {
    std::vector<Language> parts;
    for (const uint32_t character : code_points(utf8)) {
        parts.push_back(chars({{character, character}}));
    }
    return concat(parts);
}

Language Languages::concat(Language first, Language second) {
    if (first == kNothing || second == kNothing) {
        return kNothing;
    }
    if (first == kEmpty) {
        return second;
    }
    if (second == kEmpty) {
        return first;
    }
    const Key& key = *nodes_[first];
    if (std::get<0>(key) == Kind::concat) {
        const std::vector<Language> parts = std::get<2>(key);
        return concat(parts[0], concat(parts[1], second));
    }
    return add(Kind::concat, {}, {first, second}, {});
}

Language Languages::concat(const std::vector<Language>& parts) {
    Language all = kEmpty;
    for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
        all = concat(*part, all);
    }
    return all;
}

Language Languages::combine(Kind kind, const std::vector<Language>& parts, Language neutral,
                            Language absorbing) {
    std::set<Language> all;
    Ranges characters;
    for (const Language part : parts) {
        const Key& key = *nodes_[part];
        std::vector<Language> inner{part};
        if (std::get<0>(key) == kind) {
            inner = std::get<2>(key);
        }
        for (const Language one : inner) {
            if (one == absorbing) {
                return absorbing;
            }
            if (kind == Kind::either && std::get<0>(*nodes_[one]) == Kind::chars) {
                const Ranges& more = std::get<1>(*nodes_[one]);
                characters.insert(characters.end(), more.begin(), more.end());
            } else if (one != neutral) {
                all.insert(one);
            }
        }
    }
    if (!characters.empty()) {
        all.insert(chars(sorted(characters)));
    }
    if (all.empty()) {
        return neutral;
    }
    return all.size() == 1 ? *all.begin() : add(kind, {}, {all.begin(), all.end()}, {});
}

Language Languages::either(const std::vector<Language>& parts) {
    return combine(Kind::either, parts, kNothing, kAnything);
}

Language Languages::both(const std::vector<Language>& parts) {
    return combine(Kind::both, parts, kAnything, kNothing);
}

Language Languages::none_of(Language language) {
    const Key& key = *nodes_[language];
    return std::get<0>(key) == Kind::none_of ? std::get<2>(key)[0] : add(Kind::none_of, {}, {language}, {});
}

Language Languages::repeat(Language language, uint32_t least, uint32_t most) {
    if (most == 0 || language == kEmpty) {
        return kEmpty;
    }
    if (language == kNothing) {
        return least == 0 ? kEmpty : kNothing;
    }
    if (least == 1 && most == 1) {
        return language;
    }
    const Key& key = *nodes_[language];
    if (std::get<0>(key) == Kind::repeat && std::get<3>(key)[0] == 0 && std::get<3>(key)[1] == kNoLimit) {
        return language;
    }
    return add(Kind::repeat, {}, {language}, {accepts_empty_[language] ? 0 : least, most});
}

Language Languages::multiples(uint32_t divisor, uint32_t scale) {
    return add(Kind::multiples, {}, {}, {divisor, scale, 0, 0});
}

bool Languages::accepts_empty(Language language) { return accepts_empty_[language]; }

/// The numbers are divisor, scale, the rest so far, and one more than the digits behind the point (0: before
/// it).
Language Languages::after_digit(const std::array<uint32_t, 4>& numbers, uint32_t character) {
    auto [divisor, scale, rest, place] = numbers;
    if (character == '.' && place == 0) {
        return add(Kind::multiples, {}, {}, {divisor, scale, rest, 1});
    }
    if (character < '0' || character > '9') {
        return kNothing;
    }
    if (place > scale) {
        return character == '0' ? add(Kind::multiples, {}, {}, numbers) : kNothing;
    }
    rest = static_cast<uint32_t>((uint64_t{rest} * 10 + (character - '0')) % divisor);
    return add(Kind::multiples, {}, {}, {divisor, scale, rest, place == 0 ? 0 : place + 1});
}

Language Languages::after(Language language, uint32_t character) {
    const auto known = after_.find({language, character});
    if (known != after_.end()) {
        return known->second;
    }
    const Key& key = *nodes_[language];  // of a map: it stays where it is
    const std::vector<Language>& parts = std::get<2>(key);
    const std::array<uint32_t, 4>& numbers = std::get<3>(key);
    take(1 + parts.size());
    Language left = kNothing;
    switch (std::get<0>(key)) {
        case Kind::constant:
            break;
        case Kind::chars: {
            for (const auto& [low, high] : std::get<1>(key)) {
                if (character >= low && character <= high) {
                    left = kEmpty;
                }
            }
            break;
        }
        case Kind::concat: {
            left = concat(after(parts[0], character), parts[1]);
            if (accepts_empty_[parts[0]]) {
                left = either({left, after(parts[1], character)});
            }
            break;
        }
        case Kind::either:
        case Kind::both: {
            std::vector<Language> rests;
            for (const Language part : parts) {
                rests.push_back(after(part, character));
            }
            left = std::get<0>(key) == Kind::either ? either(rests) : both(rests);
            break;
        }
        case Kind::none_of:
            left = none_of(after(parts[0], character));
            break;
        case Kind::repeat: {
            const uint32_t most = numbers[1] == kNoLimit ? kNoLimit : numbers[1] - 1;
            const Language more = repeat(parts[0], numbers[0] == 0 ? 0 : numbers[0] - 1, most);
            left = concat(after(parts[0], character), more);
            break;
        }
        case Kind::multiples:
            left = after_digit(numbers, character);
            break;
    }
    after_.emplace(std::make_pair(language, character), left);
    return left;
}

bool Languages::accepts(Language language, const std::string& utf8) {
    for (const uint32_t character : code_points(utf8)) {
        language = after(language, character);
    }
    return accepts_empty_[language];
}

/// The first characters of the classes between which the language makes no difference.
std::vector<uint32_t> Languages::boundaries(Language language) const {
    std::set<uint32_t> starts{0};
    std::set<Language> seen{language};
    std::vector<Language> todo{language};
    while (!todo.empty()) {
        const Key& key = *nodes_[todo.back()];
        todo.pop_back();
        for (const auto& [low, high] : std::get<1>(key)) {
            starts.insert(low);
            starts.insert(high + 1);
        }
        if (std::get<0>(key) == Kind::multiples) {
            for (uint32_t character = '0'; character <= '9' + 1; ++character) {
                starts.insert(character);
            }
            starts.insert({'.', '.' + 1});
        }
        for (const Language part : std::get<2>(key)) {
            if (seen.insert(part).second) {
                todo.push_back(part);
            }
        }
    }
    starts.erase(kLastCodePoint + 1);
    return {starts.begin(), starts.end()};
}

Automaton Languages::automaton(Language language) {
    const std::vector<uint32_t> starts = boundaries(language);
    std::unordered_map<Language, size_t> index{{language, 0}};
    std::vector<Language> order{language};
    std::vector<std::vector<std::pair<Ranges, size_t>>> edges;
    std::vector<std::vector<size_t>> back(1);
    for (size_t here = 0; here < order.size(); ++here) {
        std::map<size_t, Ranges> targets;
        for (size_t i = 0; i < starts.size(); ++i) {
            const Language next = after(order[here], starts[i]);
            take(1);
            if (next == kNothing) {
                continue;
            }
            const auto [place, is_new] = index.emplace(next, order.size());
            if (is_new) {
                if (order.size() >= kMaxStates) {
                    throw TooLarge("it takes too many states");
                }
                order.push_back(next);
                back.emplace_back();
            }
            const uint32_t last = i + 1 < starts.size() ? starts[i + 1] - 1 : kLastCodePoint;
            targets[place->second].emplace_back(starts[i], last);
        }
        edges.emplace_back();
        for (const auto& [target, ranges] : targets) {
            edges.back().emplace_back(sorted(ranges), target);
            back[target].push_back(here);
        }
    }
    // Only what leads to an end is kept: a grammar without a way on would stop an answer.
    std::vector<bool> alive(order.size(), false);
    std::vector<size_t> todo;
    for (size_t i = 0; i < order.size(); ++i) {
        if (accepts_empty_[order[i]]) {
            alive[i] = true;
            todo.push_back(i);
        }
    }
    while (!todo.empty()) {
        const size_t here = todo.back();
        todo.pop_back();
        for (const size_t from : back[here]) {
            if (!alive[from]) {
                alive[from] = true;
                todo.push_back(from);
            }
        }
    }
    Automaton out;
    if (!alive[0]) {
        return out;
    }
    std::vector<size_t> renumbered(order.size(), 0);
    size_t count = 0;
    for (size_t i = 0; i < order.size(); ++i) {
        renumbered[i] = count;
        count += alive[i];
    }
    for (size_t i = 0; i < order.size(); ++i) {
        if (!alive[i]) {
            continue;
        }
        Automaton::State state;
        state.accepting = accepts_empty_[order[i]];
        for (auto& [ranges, target] : edges[i]) {
            if (alive[target]) {
                state.edges.emplace_back(std::move(ranges), renumbered[target]);
            }
        }
        out.states.push_back(std::move(state));
    }
    return out;
}

}  // namespace trit::schema
