// SPDX-License-Identifier: MIT
/// The table of a tier's kernels. Included behind its target region; every tier with vectors has these
/// kernels under these names. What else it has is set by with_... functions of its own.

namespace {

constexpr trit_tier with_kernels(trit_tier tier) {
    tier.supported = supported;
    tier.quantize = quantize;
    tier.i2_s = i2_s;
    tier.panel[TRIT_PACKING_2_BITS] = panel_2_bits;
    tier.panel[TRIT_PACKING_1_BIT] = panel_1_bit;
    tier.finish = finish;
    tier.accumulate = accumulate;
    tier.mac_loop = mac_loop;
    tier.read_loop = read_loop;
    return tier;
}

}  // namespace
