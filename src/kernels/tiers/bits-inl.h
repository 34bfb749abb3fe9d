// SPDX-License-Identifier: MIT
/// Included by the panels of all tiers with vectors, inside the target region and the anonymous namespace of
/// a tier.

/// A nibble of a panel of 1 bit -> the byte of a panel of 2 bits that has the same codes.
alignas(16) constexpr uint8_t kNibbles[16] = {0x00, 0x02, 0x08, 0x0A, 0x20, 0x22, 0x28, 0x2A,
                                              0x80, 0x82, 0x88, 0x8A, 0xA0, 0xA2, 0xA8, 0xAA};
