// SPDX-License-Identifier: MIT
/// `trit-selftest`: every kernel that this CPU can run against the scalar reference. Exit code 0 if all are
/// equal.
#include <cstdio>
#include <initializer_list>

#include "kernels/packing_names.h"
#include "trit.h"

int main(int, char**) {
    int failures = 0;
    for (int i = 0; i < trit_tier_count(); ++i) {
        const trit_tier* tier = trit_tier_at(i);
        char message[256] = "";
        if (!tier->supported()) {
            std::printf("%-12s not on this CPU (needs %s)\n", tier->name, tier->features);
        } else if (trit_selftest(tier, message, sizeof(message))) {
            std::printf("%-12s equal to the scalar reference\n", tier->name);
        } else {
            std::printf("%-12s FAILED: %s\n", tier->name, message);
            ++failures;
        }
    }
    for (int i = 0; i < trit_lookup_count(); ++i) {
        const trit_lookup_kernel* kernel = trit_lookup_at(i);
        char message[256] = "";
        if (!kernel->supported()) {
            std::printf("%s not on this CPU\n", kernel->name);
        } else if (trit_lookup_selftest(kernel, message, sizeof(message))) {
            std::printf("%s equal to the scalar reference\n", kernel->name);
        } else {
            std::printf("%s FAILED: %s\n", kernel->name, message);
            ++failures;
        }
    }
    if (failures == 0) {
        for (const trit_packing packing : {TRIT_PACKING_2_BITS, TRIT_PACKING_TL1, TRIT_PACKING_TL2}) {
            const trit_lookup_kernel* lookup = trit_lookup_chosen(packing);
            const char* label = packing == TRIT_PACKING_2_BITS ? "look-up" : trit::packing_name(packing);
            std::printf("%s: %s\n", label, lookup != nullptr ? lookup->name : "none");
        }
        trit_packing_asked();
        std::printf("chosen: %s\n", trit_tier_chosen()->name);
    }
    return failures == 0 ? 0 : 1;
}
