// SPDX-License-Identifier: MIT
// Made by trit/tune/codegen, version 7; changes here are lost. To make it again:
//     trit codegen lookup --tier avx2 --registers 2 --steps 2 --rows 2560 --least-tokens 24
#include "kernels/lookup/lookup_avx2-inl.h"

namespace {
struct Configuration {
    static constexpr char kName[] = "lookup_avx2_t32_s2_r2560";
    static constexpr char kTier[] = "avx2";
    static constexpr trit_packing kPacking = TRIT_PACKING_2_BITS;
    static constexpr int kRegisters = 2;
    static constexpr int kSteps = 2;
    static constexpr int kRows = 2560;
    static constexpr int kLeastTokens = 24;
};
}  // namespace

extern "C" const trit_lookup_kernel trit_lookup_avx2_t32_s2_r2560 = lookup_kernel<Configuration>();
