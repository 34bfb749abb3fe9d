// SPDX-License-Identifier: MIT
/// Tier avx512_vnni: 512-bit integers with vpdpbusd. Needs AVX-512 F, BW and VNNI.
#include "kernels/tier.h"

#ifdef TRIT_X86

#include <immintrin.h>

#include <cstring>
#include <limits>

TRIT_TARGET_BEGIN("avx512f,avx512bw,avx512vnni")
namespace {

int supported() { return trit_x86_has(TRIT_X86_AVX512F | TRIT_X86_AVX512BW | TRIT_X86_AVX512VNNI); }

#include "kernels/tiers/avx512_in_place-inl.h"
#include "kernels/tiers/avx512_panel-inl.h"
#include "kernels/tiers/avx512_q6_k-inl.h"

}  // namespace
TRIT_TARGET_END

extern "C" const trit_tier trit_tier_avx512_vnni = {"avx512_vnni",
                                                    "AVX-512 F, BW, VNNI",
                                                    40,
                                                    supported,
                                                    quantize,
                                                    i2_s,
                                                    {panel_2_bits<DotTiles>, nullptr},
                                                    finish,
                                                    accumulate,
                                                    DotTiles::mac_loop,
                                                    read_loop,
                                                    q6_k};

#else

extern "C" const trit_tier trit_tier_avx512_vnni = {"avx512_vnni",
                                                    "AVX-512 F, BW, VNNI",
                                                    40,
                                                    trit_never,
                                                    nullptr,
                                                    nullptr,
                                                    {nullptr, nullptr},
                                                    nullptr,
                                                    nullptr,
                                                    nullptr,
                                                    nullptr,
                                                    nullptr};

#endif
