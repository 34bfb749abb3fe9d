// SPDX-License-Identifier: MIT
#include "matrix/tuning.h"

#include <cmath>
#include <cstdlib>
#include <utility>

namespace trit {
namespace {

/// What was added last comes first.
std::vector<std::vector<TunedShape>>& tunings() {
    static std::vector<std::vector<TunedShape>> list;
    return list;
}

/// Sum of the distances of n and k. A shape that is further from all that were measured (2 and 2 times as
/// large, or 4 times in one direction) is none of them: small matrices say nothing about large ones.
constexpr double kFarthest = 1.3863;  // ln 4

constexpr size_t kMostKnown = 64;

double distance(double a, double b) { return std::fabs(std::log(a / b)); }

/// The nearest shape that is not far off, with the nearest number of threads.
const TunedShape* nearest_of(const std::vector<TunedShape>& shapes, int64_t n, int64_t k, int threads) {
    const TunedShape* found = nullptr;
    std::pair<double, double> least{0.0, 0.0};
    for (const TunedShape& shape : shapes) {
        const std::pair<double, double> far{
            distance(static_cast<double>(n), static_cast<double>(shape.n)) +
                distance(static_cast<double>(k), static_cast<double>(shape.k)),
            distance(threads, shape.threads)};
        if (far.first <= kFarthest && (found == nullptr || far < least)) {
            found = &shape;
            least = far;
        }
    }
    return found;
}

/// What every product asks: a model has few shapes, and a search takes some microseconds.
struct Known {
    int64_t n;
    int64_t k;
    int threads;
    const TunedShape* shape;
};

const TunedShape* nearest(int64_t n, int64_t k, int threads) {
    thread_local std::vector<Known> known;
    thread_local size_t tunings_then = 0;
    if (tunings_then != tunings().size()) {
        known.clear();
        tunings_then = tunings().size();
    }
    for (const Known& one : known) {
        if (one.n == n && one.k == k && one.threads == threads) {
            return one.shape;
        }
    }
    const TunedShape* found = nullptr;
    for (size_t i = 0; i < tunings().size() && found == nullptr; ++i) {
        found = nearest_of(tunings()[i], n, k, threads);
    }
    if (known.size() < kMostKnown) {
        known.push_back({n, k, threads, found});
    }
    return found;
}

constexpr int kMostThreads = 1 << 20;

int& at_once(trit_packing packing) {
    static int tokens[TRIT_TIER_PACKINGS] = {};
    return tokens[packing < TRIT_TIER_PACKINGS ? packing : TRIT_PACKING_2_BITS];
}

}  // namespace

void add_tuning(std::vector<TunedShape> shapes) { tunings().insert(tunings().begin(), std::move(shapes)); }

LookupChoice lookup_choice(int64_t n, int64_t k, int threads) {
    static const char* const forced = std::getenv("TRIT_LOOKUP");
    const TunedShape* shape = nearest(n, k, threads);
    const bool is_forced = forced != nullptr && forced[0] != '\0';
    return shape != nullptr && !is_forced ? shape->lookup
                                          : LookupChoice::of(trit_lookup_chosen(TRIT_PACKING_2_BITS));
}

int tokens_at_once(trit_packing packing) { return at_once(packing); }

void set_tokens_at_once(trit_packing packing, int tokens) { at_once(packing) = tokens; }

trit_packing tuned_packing(int64_t n, int64_t k) {
    const TunedShape* shape = nearest(n, k, kMostThreads);
    return shape != nullptr ? shape->packing : TRIT_PACKING_COUNT;
}

}  // namespace trit
