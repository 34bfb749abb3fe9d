// SPDX-License-Identifier: MIT
/// Tier avx512_vbmi: as avx512_vnni, and five trits per byte by one 128-byte table lookup (vpermi2b).
#include "kernels/tier.h"

#ifdef TRIT_X86

#include <immintrin.h>

#include <cstring>
#include <limits>

TRIT_TARGET_BEGIN("avx512f,avx512bw,avx512vnni,avx512vbmi")
namespace {

int supported() {
    return trit_x86_has(TRIT_X86_AVX512F | TRIT_X86_AVX512BW | TRIT_X86_AVX512VNNI | TRIT_X86_AVX512VBMI);
}

#include "kernels/tiers/avx512_in_place-inl.h"
#include "kernels/tiers/avx512_panel-inl.h"
#include "kernels/tiers/avx512_q6_k-inl.h"
#include "kernels/tiers/avx512_trits-inl.h"

}  // namespace
TRIT_TARGET_END

extern "C" const trit_tier trit_tier_avx512_vbmi = {"avx512_vbmi",
                                                    "AVX-512 F, BW, VNNI, VBMI",
                                                    50,
                                                    supported,
                                                    quantize,
                                                    i2_s,
                                                    {panel_2_bits<DotTiles>, panel_5_trits<DotTiles>},
                                                    finish,
                                                    accumulate,
                                                    DotTiles::mac_loop,
                                                    read_loop,
                                                    q6_k};

#else

extern "C" const trit_tier trit_tier_avx512_vbmi = {"avx512_vbmi",
                                                    "AVX-512 F, BW, VNNI, VBMI",
                                                    50,
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
