// SPDX-License-Identifier: MIT
/// `tuned_choice N K THREADS`: which of three made-up choices src/matrix/tuning.cpp takes, as the panels of a
/// call: 1 for 2560 x 2560 on one thread, 2 for the same on 8, 3 for 256 x 256, 9 for the default; and the
/// packing's number: 0, 4, 3 of the three, 5 for the default. Of a preset behind them, 5 (packing 3) for
/// 16384 x 16384.
#include <cstdio>
#include <cstdlib>

#include "matrix/tuning.h"

static const trit_lookup_kernel default_kernel = {
    "lookup_default", "scalar", TRIT_PACKING_2_BITS, nullptr, 32, 21, 9, 0, nullptr, nullptr};

extern "C" const trit_lookup_kernel* trit_lookup_chosen(trit_packing) { return &default_kernel; }

int main(int, char** argv) {
    const auto choice = [](int panels) { return trit::LookupChoice{&default_kernel, panels, 7}; };
    // The presets, behind what was measured.
    trit::add_tuning(
        {{2560, 2560, 1, choice(8), TRIT_PACKING_2_BITS}, {16384, 16384, 1, choice(5), TRIT_PACKING_TL1}});
    trit::add_tuning({{2560, 2560, 1, choice(1), TRIT_PACKING_2_BITS},
                      {2560, 2560, 8, choice(2), TRIT_PACKING_TL2},
                      {256, 256, 1, choice(3), TRIT_PACKING_TL1}});
    const int64_t n = std::atoll(argv[1]);
    const int64_t k = std::atoll(argv[2]);
    std::printf("%d %d\n", trit::lookup_choice(n, k, std::atoi(argv[3])).panels, trit::tuned_packing(n, k));
    return 0;
}
