// SPDX-License-Identifier: MIT
/// The head's dot product in q6_K for the tiers with sdot. Included after neon_common-inl.h, inside the
/// target region and the anonymous namespace of a tier.
///
/// llama.cpp's own is compiled for every 64-bit ARM, without sdot, and adds up the lanes of each 16 products.
/// Here the sums of four groups meet in one register, whose lanes are multiplied by four scales and added up
/// once per block; codes are made once for all tokens.

constexpr size_t kQ6Ahead = 1024;

/// A row's block: its scales in 32 bits, and a register of upper bits for each 16 inputs of each half.
struct Q6Block {
    const uint8_t* nibbles;
    uint8x16_t upper[4];
    int16x8_t scales[2];
    int32x4_t wide_scales[4];

    explicit Q6Block(const uint8_t* w) : nibbles(w) {
        const int8x16_t bytes = vld1q_s8(reinterpret_cast<const int8_t*>(w + 192));
        scales[0] = vmovl_s8(vget_low_s8(bytes));
        scales[1] = vmovl_s8(vget_high_s8(bytes));
        TRIT_UNROLL
        for (int i = 0; i < 2; ++i) {
            wide_scales[2 * i] = vmovl_s16(vget_low_s16(scales[i]));
            wide_scales[2 * i + 1] = vmovl_s16(vget_high_s16(scales[i]));
        }
        TRIT_UNROLL
        for (int i = 0; i < 4; ++i) {
            upper[i] = load(w + 128 + 16 * i);
        }
    }

    /// Codes 0..63 of the I-th 16 inputs: a nibble below bits 2 f and 2 f + 1 of the upper ones. (Many cores
    /// have one pipe for shifts, and two or more for the rest.)
    template <int I>
    int8x16_t codes_of() const {
        constexpr int kHalf = I / 8;
        constexpr int kField = I / 2 % 4;
        const uint8x16_t up = upper[2 * kHalf + I % 2];
        const uint8x16_t low = load(nibbles + 64 * kHalf + kField % 2 * 32 + I % 2 * 16);
        const uint8x16_t mask = vdupq_n_u8(0x30);
        if constexpr (kField == 0) {
            return codes(vsliq_n_u8(low, vandq_u8(up, vdupq_n_u8(3)), 4));
        } else if constexpr (kField == 1) {
            return codes(vbslq_u8(mask, vshlq_n_u8(up, 2), vandq_u8(low, vdupq_n_u8(15))));
        } else if constexpr (kField == 2) {
            return codes(vbslq_u8(mask, up, vshrq_n_u8(low, 4)));
        } else {
            return codes(vshrq_n_u8(vsriq_n_u8(up, low, 2), 2));
        }
    }
};

/// Adds the products of four groups of 16 inputs, from group 4 G on, each times its scale, for M tokens. (A
/// sum of lanes costs less than a multiplication by one scale.)
template <int M, int G>
TRIT_INLINE void add_q6_products(const Q6Block& block, const uint8_t* token, size_t token_bytes,
                                 int32x4_t sums[M]) {
    const int8x16_t u[4] = {block.codes_of<4 * G>(), block.codes_of<4 * G + 1>(), block.codes_of<4 * G + 2>(),
                            block.codes_of<4 * G + 3>()};
    TRIT_UNROLL
    for (int j = 0; j < M; ++j) {
        const auto* q =
            reinterpret_cast<const int8_t*>(token + static_cast<size_t>(j) * token_bytes + 4 + 64 * G);
        int32x4_t products[4];
        TRIT_UNROLL
        for (int i = 0; i < 4; ++i) {
            products[i] = add(int32x4_t{}, u[i], load(q + 16 * i));
        }
        const int32x4_t four =
            vpaddq_s32(vpaddq_s32(products[0], products[1]), vpaddq_s32(products[2], products[3]));
        sums[j] = vmlaq_s32(sums[j], four, block.wide_scales[G]);
    }
}

template <int M, int... G>
TRIT_INLINE void add_q6_block(const Q6Block& block, const uint8_t* token, size_t token_bytes,
                              int32x4_t sums[M], std::integer_sequence<int, G...>) {
    (add_q6_products<M, G>(block, token, token_bytes, sums), ...);
}

template <int M>
void q6_k_row(int64_t k, const uint8_t* w, const uint8_t* tokens, size_t token_bytes, float acc[M]) {
    for (int j = 0; j < M; ++j) {
        acc[j] = 0.0f;
    }
    for (int64_t b = 0; b < k / TRIT_K_BLOCK; ++b, w += TRIT_Q6_K_BYTES, tokens += TRIT_Q8_K_BYTES) {
        TRIT_UNROLL
        for (int line = 0; line < 4; ++line) {
            prefetch(w + kQ6Ahead + 64 * line);
        }
        const Q6Block block(w);
        int32x4_t sums[M] = {};
        add_q6_block<M>(block, tokens, token_bytes, sums, std::make_integer_sequence<int, 4>());
        uint16_t half = 0;
        std::memcpy(&half, w + 208, sizeof(half));
        const float d = vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(half))), 0);
        TRIT_UNROLL
        for (int j = 0; j < M; ++j) {
            const uint8_t* token = tokens + static_cast<size_t>(j) * token_bytes;
            float token_scale = 0.0f;
            std::memcpy(&token_scale, token, sizeof(token_scale));
            // The codes are 32 too large; bsums are the sums of 16 inputs.
            int16_t bsums[16];
            std::memcpy(bsums, token + 260, sizeof(bsums));
            int32x4_t excess = {};
            TRIT_UNROLL
            for (int i = 0; i < 2; ++i) {
                const int16x8_t bsum = vld1q_s16(bsums + 8 * i);
                excess = vmlal_s16(excess, vget_low_s16(bsum), vget_low_s16(block.scales[i]));
                excess = vmlal_high_s16(excess, bsum, block.scales[i]);
            }
            const auto total = static_cast<float>(vaddvq_s32(vmlsq_n_s32(sums[j], excess, 32)));
            const float32x2_t grown =
                vfma_f32(vdup_n_f32(acc[j]), vdup_n_f32(token_scale * d), vdup_n_f32(total));
            acc[j] = vget_lane_f32(grown, 0);
        }
    }
}

template <int M>
void q6_k_rows(int64_t k, const uint8_t* w, size_t w_row_bytes, int64_t n, const uint8_t* tokens,
               size_t token_bytes, float* const* out) {
    for (int64_t i = 0; i < n; ++i, w += w_row_bytes) {
        float acc[M];
        q6_k_row<M>(k, w, tokens, token_bytes, acc);
        for (int j = 0; j < M; ++j) {
            out[j][i] = acc[j];
        }
    }
}

void q6_k(int64_t k, const uint8_t* w, size_t w_row_bytes, int64_t n, const uint8_t* tokens,
          size_t token_bytes, int m, float* const* out) {
    constexpr decltype(&q6_k_rows<1>) kRows[TRIT_Q6_K_TOKENS] = {
        q6_k_rows<1>, q6_k_rows<2>, q6_k_rows<3>, q6_k_rows<4>, q6_k_rows<5>, q6_k_rows<6>, q6_k_rows<7>};
    kRows[m - 1](k, w, w_row_bytes, n, tokens, token_bytes, out);
}

constexpr trit_tier with_q6_k(trit_tier tier) {
    tier.q6_k = q6_k;
    return tier;
}
