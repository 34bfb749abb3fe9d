// SPDX-License-Identifier: MIT
/// Which look-up kernels there are, and which one is used.
#include "kernels/registry.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <vector>

#include "kernels/packing_names.h"
#include "trit.h"

#define TRIT_LOOKUP(name) extern "C" const trit_lookup_kernel trit_##name;
#include "trit_lookups.inc"
#undef TRIT_LOOKUP

namespace {

/// Those compiled in, and those added behind them.
std::vector<const trit_lookup_kernel*>& kernels() {
    static std::vector<const trit_lookup_kernel*> list = {
#define TRIT_LOOKUP(name) &trit_##name,
#include "trit_lookups.inc"
#undef TRIT_LOOKUP
    };
    return list;
}

const trit_lookup_kernel*& preferred(trit_packing packing) {
    static const trit_lookup_kernel* list[TRIT_PACKING_COUNT] = {};
    return list[packing];
}

const trit_lookup_kernel* forced_kernel(const char* name) {
    const trit_lookup_kernel* kernel = trit_lookup_by_name(name);
    if (kernel == nullptr) {
        std::fprintf(stderr, "error: TRIT_LOOKUP=%s: there is no such kernel; this build has off", name);
        for (const trit_lookup_kernel* other : kernels()) {
            std::fprintf(stderr, " %s", other->name);
        }
        std::fprintf(stderr, "\n");
    } else if (!kernel->supported()) {
        std::fprintf(stderr, "error: TRIT_LOOKUP=%s: this CPU lacks its instructions; unset TRIT_LOOKUP\n",
                     name);
    } else if (const std::string& fault = trit::lookup_fault(kernel); !fault.empty()) {
        std::fprintf(stderr, "error: TRIT_LOOKUP=%s: self-test failed: %s\n", name, fault.c_str());
    } else {
        return kernel;
    }
    std::exit(2);
}

/// The higher, the better: the rank of the tier that a kernel is made for, and first of all a tier asked for.
int preference(const trit_lookup_kernel* kernel) {
    const char* forced = std::getenv("TRIT_TIER");
    if (forced != nullptr && std::strcmp(kernel->tier, forced) == 0) {
        return std::numeric_limits<int>::max();
    }
    const trit_tier* tier = trit_tier_by_name(kernel->tier);
    return tier != nullptr ? tier->rank : 0;
}

/// The kernels for panels of this packing that are worth a try, the best first.
///
/// Those made for another tier than the chosen one are left out, but not of TL1 and TL2, which nothing else
/// reads: there an instruction set that the tier does not use may serve (AVX-512 without VNNI).
std::vector<const trit_lookup_kernel*> candidates(trit_packing packing) {
    const bool any_tier = packing == TRIT_PACKING_TL1 || packing == TRIT_PACKING_TL2;
    std::vector<const trit_lookup_kernel*> found;
    for (const trit_lookup_kernel* kernel : kernels()) {
        if (kernel->packing == packing && kernel->supported() &&
            (any_tier || std::strcmp(kernel->tier, trit_tier_chosen()->name) == 0)) {
            found.push_back(kernel);
        }
    }
    std::stable_sort(found.begin(), found.end(),
                     [](const auto* a, const auto* b) { return preference(a) > preference(b); });
    return found;
}

const trit_lookup_kernel* choose_kernel(trit_packing packing) {
    const char* name = std::getenv("TRIT_LOOKUP");
    if (name != nullptr && std::strcmp(name, "off") == 0) {
        return nullptr;
    }
    if (name != nullptr && name[0] != '\0') {
        static const trit_lookup_kernel* const forced = forced_kernel(name);
        if (forced->packing == packing) {
            return forced;
        }
    }
    for (const trit_lookup_kernel* kernel : candidates(packing)) {
        const std::string& fault = trit::lookup_fault(kernel);
        if (fault.empty()) {
            return kernel;
        }
        std::fprintf(stderr, "warning: kernel %s is skipped: %s; please report this with your CPU's name\n",
                     kernel->name, fault.c_str());
    }
    return nullptr;
}

/// One static for each packing: only those that are asked for are tested.
template <trit_packing kPacking>
const trit_lookup_kernel* chosen_kernel() {
    static const trit_lookup_kernel* const kernel = choose_kernel(kPacking);
    return kernel;
}

trit_packing read_packing() {
    const char* name = std::getenv("TRIT_PACKING");
    if (name == nullptr || name[0] == '\0') {
        return TRIT_PACKING_COUNT;
    }
    for (int i = 0; i < TRIT_PACKING_COUNT; ++i) {
        const auto packing = static_cast<trit_packing>(i);
        if (!trit::is_ternary(packing) || std::strcmp(name, trit::packing_name(packing)) != 0) {
            continue;
        }
        if (!trit::is_readable(*trit_tier_chosen(), packing)) {
            std::fprintf(
                stderr, "error: TRIT_PACKING=%s: no kernel for it works beside tier %s; unset TRIT_PACKING\n",
                name, trit_tier_chosen()->name);
            std::exit(2);
        }
        return packing;
    }
    std::fprintf(stderr, "error: TRIT_PACKING=%s: there is no such packing; there are", name);
    for (int i = 0; i < TRIT_PACKING_COUNT; ++i) {
        if (trit::is_ternary(static_cast<trit_packing>(i))) {
            std::fprintf(stderr, " %s", trit::packing_name(static_cast<trit_packing>(i)));
        }
    }
    std::fprintf(stderr, "\n");
    std::exit(2);
}

}  // namespace

const std::string& trit::lookup_fault(const trit_lookup_kernel* kernel) {
    static std::mutex mutex;
    static std::map<const trit_lookup_kernel*, std::string> faults;
    const std::lock_guard<std::mutex> lock(mutex);
    const auto known = faults.find(kernel);
    if (known != faults.end()) {
        return known->second;
    }
    char message[256] = "";
    const bool passed = trit_lookup_selftest(kernel, message, sizeof(message)) != 0;
    return faults[kernel] = passed ? "" : message;
}

bool trit::is_readable(const trit_tier& tier, trit_packing packing) {
    return packing < TRIT_TIER_PACKINGS ? tier.panel[packing] != nullptr
                                        : trit_lookup_chosen(packing) != nullptr;
}

int trit_lookup_count(void) { return static_cast<int>(kernels().size()); }

const trit_lookup_kernel* trit_lookup_at(int i) {
    return i >= 0 && i < trit_lookup_count() ? kernels()[static_cast<size_t>(i)] : nullptr;
}

int trit_lookup_add(const trit_lookup_kernel* kernel) {
    if (trit_lookup_by_name(kernel->name) != nullptr) {
        return 0;
    }
    kernels().push_back(kernel);
    return 1;
}

void trit_lookup_prefer(const trit_lookup_kernel* kernel) { preferred(kernel->packing) = kernel; }

const trit_lookup_kernel* trit_lookup_by_name(const char* name) {
    for (const trit_lookup_kernel* kernel : kernels()) {
        if (std::strcmp(kernel->name, name) == 0) {
            return kernel;
        }
    }
    return nullptr;
}

const trit_lookup_kernel* trit_lookup_chosen(trit_packing packing) {
    static const char* const forced = std::getenv("TRIT_LOOKUP");
    if (packing < TRIT_PACKING_COUNT && preferred(packing) != nullptr &&
        (forced == nullptr || forced[0] == '\0')) {
        return preferred(packing);
    }
    switch (packing) {
        case TRIT_PACKING_2_BITS:
            return chosen_kernel<TRIT_PACKING_2_BITS>();
        case TRIT_PACKING_TL1:
            return chosen_kernel<TRIT_PACKING_TL1>();
        case TRIT_PACKING_TL2:
            return chosen_kernel<TRIT_PACKING_TL2>();
        default:
            return nullptr;
    }
}

trit_packing trit_packing_asked(void) {
    static const trit_packing packing = read_packing();
    return packing;
}
