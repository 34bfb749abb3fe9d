// SPDX-License-Identifier: MIT
/// Which tiers there are, and which one is used.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/tier.h"

#define TRIT_TIER(name) extern "C" const trit_tier trit_tier_##name;
#include "trit_tiers.inc"
#undef TRIT_TIER

namespace {

using TierList = std::array<const trit_tier*,
#define TRIT_TIER(name) +1
#include "trit_tiers.inc"
#undef TRIT_TIER
                            >;

const TierList& tiers_by_rank() {
    static const TierList list = [] {
        TierList tiers = {
#define TRIT_TIER(name) &trit_tier_##name,
#include "trit_tiers.inc"
#undef TRIT_TIER
        };
        std::sort(tiers.begin(), tiers.end(),
                  [](const trit_tier* a, const trit_tier* b) { return a->rank > b->rank; });
        return tiers;
    }();
    return list;
}

const trit_tier* forced_tier(const char* name) {
    const trit_tier* tier = trit_tier_by_name(name);
    char message[256] = "";
    if (tier == nullptr) {
        std::fprintf(stderr, "error: TRIT_TIER=%s: there is no such tier; this build has", name);
        for (const trit_tier* t : tiers_by_rank()) {
            std::fprintf(stderr, " %s", t->name);
        }
        std::fprintf(stderr, "\n");
    } else if (!tier->supported()) {
        std::fprintf(stderr,
                     "error: TRIT_TIER=%s: this CPU lacks one of %s; unset TRIT_TIER to use what it has\n",
                     name, tier->features);
    } else if (!trit_selftest(tier, message, sizeof(message))) {
        std::fprintf(stderr, "error: TRIT_TIER=%s: self-test failed: %s\n", name, message);
    } else {
        return tier;
    }
    std::exit(2);
}

const trit_tier* choose_tier() {
    const char* forced = std::getenv("TRIT_TIER");
    if (forced != nullptr && forced[0] != '\0') {
        return forced_tier(forced);
    }
    for (const trit_tier* tier : tiers_by_rank()) {
        char message[256] = "";
        if (!tier->supported()) {
            continue;
        }
        if (trit_selftest(tier, message, sizeof(message))) {
            return tier;
        }
        std::fprintf(stderr, "warning: tier %s is skipped: %s; please report this with your CPU's name\n",
                     tier->name, message);
    }
    std::fprintf(stderr, "error: no tier passes its self-test, not even scalar: the build is broken\n");
    std::exit(1);
}

}  // namespace

int trit_tier_count(void) { return static_cast<int>(tiers_by_rank().size()); }

const trit_tier* trit_tier_at(int i) {
    return i >= 0 && i < trit_tier_count() ? tiers_by_rank()[static_cast<size_t>(i)] : nullptr;
}

const trit_tier* trit_tier_by_name(const char* name) {
    for (const trit_tier* tier : tiers_by_rank()) {
        if (std::strcmp(tier->name, name) == 0) {
            return tier;
        }
    }
    return nullptr;
}

const trit_tier* trit_tier_chosen(void) {
    static const trit_tier* const tier = choose_tier();
    return tier;
}
