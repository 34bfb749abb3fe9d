// SPDX-License-Identifier: MIT
/// The table of an AVX-512 tier's kernels, as kernels-inl.h. Included behind its target region.

namespace {

/// Tiles: what multiplies an unpacked chunk, such as DotTiles.
template <typename Tiles>
constexpr trit_tier with_kernels(trit_tier tier) {
    tier.supported = supported;
    tier.quantize = quantize;
    tier.i2_s = i2_s;
    tier.panel[TRIT_PACKING_2_BITS] = panel_2_bits<Tiles>;
    tier.finish = finish;
    tier.accumulate = accumulate;
    tier.mac_loop = Tiles::mac_loop;
    tier.read_loop = read_loop;
    tier.q6_k = q6_k;
    return tier;
}

}  // namespace
