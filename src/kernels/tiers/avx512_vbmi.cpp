// SPDX-License-Identifier: MIT
/// Tier avx512_vbmi: as avx512_vnni, and five trits per byte by one 128-byte table lookup (vpermi2b).
#include "kernels/tiers/simd.h"

static constexpr trit_tier kAbsent = trit_absent_tier("avx512_vbmi", "AVX-512 F, BW, VNNI, VBMI", 50);

#ifdef TRIT_X86

TRIT_TARGET_BEGIN("avx512f,avx512bw,avx512vnni,avx512vbmi")
namespace {

int supported() {
    return trit_x86_has(TRIT_X86_AVX512F | TRIT_X86_AVX512BW | TRIT_X86_AVX512VNNI | TRIT_X86_AVX512VBMI);
}

#include "kernels/tiers/avx512_in_place-inl.h"
#include "kernels/tiers/avx512_panel-inl.h"
#include "kernels/tiers/avx512_q6_k-inl.h"
#include "kernels/tiers/avx512_trits-inl.h"

constexpr trit_panel_fn panel_2_bits = panel_by<TwoBits, DotTiles>;
constexpr trit_panel_fn panel_1_bit = panel_by<OneBit, DotTiles>;
constexpr trit_mac_loop_fn mac_loop = DotTiles::mac_loop;

}  // namespace
TRIT_TARGET_END

#include "kernels/tiers/kernels-inl.h"

extern "C" const trit_tier trit_tier_avx512_vbmi = with_trits<DotTiles>(with_q6_k(with_kernels(kAbsent)));

#else

extern "C" const trit_tier trit_tier_avx512_vbmi = kAbsent;

#endif
