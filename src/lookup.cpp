// SPDX-License-Identifier: MIT
/// Which look-up kernels there are, and which one is used.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "trit.h"

#define TRIT_LOOKUP(name) extern "C" const trit_lookup_kernel trit_##name;
#include "trit_lookups.inc"
#undef TRIT_LOOKUP

namespace {

// Ends with a null pointer: a build may have none.
const trit_lookup_kernel* const kKernels[] = {
#define TRIT_LOOKUP(name) &trit_##name,
#include "trit_lookups.inc"
#undef TRIT_LOOKUP
    nullptr};

const trit_lookup_kernel* forced_kernel(const char* name) {
    const trit_lookup_kernel* kernel = nullptr;
    for (int i = 0; i < trit_lookup_count(); ++i) {
        if (std::strcmp(kKernels[i]->name, name) == 0) {
            kernel = kKernels[i];
        }
    }
    char message[256] = "";
    if (kernel == nullptr) {
        std::fprintf(stderr, "error: TRIT_LOOKUP=%s: there is no such kernel; this build has off", name);
        for (int i = 0; i < trit_lookup_count(); ++i) {
            std::fprintf(stderr, " %s", kKernels[i]->name);
        }
        std::fprintf(stderr, "\n");
    } else if (!kernel->supported()) {
        std::fprintf(stderr, "error: TRIT_LOOKUP=%s: this CPU lacks its instructions; unset TRIT_LOOKUP\n",
                     name);
    } else if (!trit_lookup_selftest(kernel, message, sizeof(message))) {
        std::fprintf(stderr, "error: TRIT_LOOKUP=%s: self-test failed: %s\n", name, message);
    } else {
        return kernel;
    }
    std::exit(2);
}

const trit_lookup_kernel* choose_kernel() {
    const char* forced = std::getenv("TRIT_LOOKUP");
    if (forced != nullptr && std::strcmp(forced, "off") == 0) {
        return nullptr;
    }
    if (forced != nullptr && forced[0] != '\0') {
        return forced_kernel(forced);
    }
    for (int i = 0; i < trit_lookup_count(); ++i) {
        const trit_lookup_kernel* kernel = kKernels[i];
        char message[256] = "";
        if (std::strcmp(kernel->tier, trit_tier_chosen()->name) != 0 || !kernel->supported()) {
            continue;
        }
        if (trit_lookup_selftest(kernel, message, sizeof(message))) {
            return kernel;
        }
        std::fprintf(stderr, "warning: kernel %s is skipped: %s; please report this with your CPU's name\n",
                     kernel->name, message);
    }
    return nullptr;
}

}  // namespace

int trit_lookup_count(void) { return static_cast<int>(std::size(kKernels)) - 1; }

const trit_lookup_kernel* trit_lookup_at(int i) {
    return i >= 0 && i < trit_lookup_count() ? kKernels[i] : nullptr;
}

const trit_lookup_kernel* trit_lookup_chosen(void) {
    static const trit_lookup_kernel* const kernel = choose_kernel();
    return kernel;
}
