// SPDX-License-Identifier: MIT
// Made by trit/tune/codegen, version 7; changes here are lost. To make it again:
//     trit codegen tl2 --tier avx2 --BM 2560 --BK 6912 --bm 64
#include "kernels/lookup/table_avx2-inl.h"

namespace {
struct Configuration {
    static constexpr char kName[] = "tl2_avx2_2560x6912x64";
    static constexpr char kTier[] = "avx2";
    static constexpr trit_packing kPacking = TRIT_PACKING_TL2;
    static constexpr int kRows = 2560;
    static constexpr int kInputs = 6912;
    static constexpr int kBlock = 64;
    static constexpr int kUnroll = 2;
    static constexpr bool kNibbles = true;
    static constexpr int kTokens = 4;
    static constexpr size_t kAhead = 4096;
};
}  // namespace

extern "C" const trit_lookup_kernel trit_tl2_avx2_2560x6912x64 = lookup_kernel<Configuration>();
