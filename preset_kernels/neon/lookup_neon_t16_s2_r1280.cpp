// SPDX-License-Identifier: MIT
// Made by trit/tune/codegen, version 7; changes here are lost. To make it again:
//     trit codegen lookup --tier neon --registers 2 --steps 2 --rows 1280 --least-tokens 9
#include "kernels/lookup/lookup_neon-inl.h"

namespace {
struct Configuration {
    static constexpr char kName[] = "lookup_neon_t16_s2_r1280";
    static constexpr char kTier[] = "neon";
    static constexpr trit_packing kPacking = TRIT_PACKING_2_BITS;
    static constexpr int kRegisters = 2;
    static constexpr int kSteps = 2;
    static constexpr int kRows = 1280;
    static constexpr int kLeastTokens = 9;
};
}  // namespace

extern "C" const trit_lookup_kernel trit_lookup_neon_t16_s2_r1280 = lookup_kernel<Configuration>();
