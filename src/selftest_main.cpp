// SPDX-License-Identifier: MIT
/// `trit-selftest`: every tier that this CPU can run against the scalar reference. Exit code 0 if all are
/// equal.
#include <cstdio>

#include "trit.h"

int main() {
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
    if (failures == 0) {
        std::printf("chosen: %s\n", trit_tier_chosen()->name);
    }
    return failures == 0 ? 0 : 1;
}
