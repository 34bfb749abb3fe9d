// SPDX-License-Identifier: MIT
/// The scale of a token's activations, for all SIMD tiers. Included inside the target region and the
/// anonymous namespace of a tier.

/// Scale 127 / max|x| from the largest bit pattern of |x[i]|: for floats without sign the order of the bits
/// is the order of the values, and NaN and infinity stand above all others. With one of these in x, the token
/// is finished: zeros, and NaN as the scale; returns false.
bool find_scale(uint32_t bits, int64_t k, int8_t* q, float* scale, int32_t* sum) {
    if (bits >= 0x7F800000u) {
        std::memset(q, 0, static_cast<size_t>(k));
        *scale = std::numeric_limits<float>::quiet_NaN();
        *sum = 0;
        return false;
    }
    float max_abs = 0.0f;
    std::memcpy(&max_abs, &bits, sizeof(max_abs));
    *scale = 127.0f / (max_abs > 1e-5f ? max_abs : 1e-5f);
    return true;
}
