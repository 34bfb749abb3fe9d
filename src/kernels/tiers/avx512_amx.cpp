// SPDX-License-Identifier: MIT
/// Tier avx512_amx: as avx512_vbmi, and the prefill tiles by AMX's int8 matrix unit (Sapphire Rapids and
/// later).
///
/// The unpacked chunk of a panel already is what TDPBSUD wants: 16 vectors of one row group, one for every 4
/// inputs, are the 16 rows of a tile of weights (64 inputs x 16 rows). A tile of activations is 16 tokens x
/// 64 inputs, read in place. 2 x 2 result tiles (32 tokens x 32 rows) per step; tokens beyond a multiple of
/// 16 and inputs beyond a multiple of 64 go through vpdpbusd.
#include "kernels/tiers/simd.h"

static constexpr trit_tier kAbsent =
    trit_absent_tier("avx512_amx", "AVX-512 F, BW, VNNI, VBMI, AMX-TILE, AMX-INT8", 60);

// GNU assembler syntax in amx_tiles-inl.h; Visual C++ builds have the tier below this one.
#if defined(TRIT_X86) && defined(__GNUC__)

TRIT_TARGET_BEGIN("avx512f,avx512bw,avx512vnni,avx512vbmi,amx-tile,amx-int8")
namespace {

#include "kernels/tiers/amx_tiles-inl.h"

int supported() {
    constexpr unsigned kVector =
        TRIT_X86_AVX512F | TRIT_X86_AVX512BW | TRIT_X86_AVX512VNNI | TRIT_X86_AVX512VBMI;
#if defined(TRIT_EMULATE) && !defined(TRIT_EMULATE_AVX512)
    return trit_x86_has(kVector);
#elif defined(TRIT_EMULATE)
    return trit_x86_has(kVector | TRIT_X86_AMX_TILE | TRIT_X86_AMX_INT8);
#else
    return trit_x86_has(kVector | TRIT_X86_AMX_TILE | TRIT_X86_AMX_INT8) && trit_x86_allow_amx();
#endif
}

#include "kernels/tiers/avx512_in_place-inl.h"
#include "kernels/tiers/avx512_panel-inl.h"
#include "kernels/tiers/avx512_q6_k-inl.h"
#include "kernels/tiers/avx512_trits-inl.h"

/// Our tile configuration for as long as it lives; the engine has AMX code of its own, whose configuration
/// comes back afterwards.
class Tiles8 {
 public:
    Tiles8() {
        TRIT_TILE_STORE_CONFIG(&before_);
        AmxConfig config = {};
        config.palette = 1;
        for (int t = 0; t < 8; ++t) {
            config.row_bytes[t] = 64;
            config.rows[t] = 16;
        }
        TRIT_TILE_LOAD_CONFIG(&config);
    }
    ~Tiles8() { TRIT_TILE_LOAD_CONFIG(&before_); }
    Tiles8(const Tiles8&) = delete;
    Tiles8& operator=(const Tiles8&) = delete;

 private:
    AmxConfig before_ = {};
};

constexpr int kAmxTokens = 16;
constexpr int kAmxInputs = 64;
constexpr size_t kStride = 256;  ///< from one row of a tile of weights, or of results, to the next, in bytes

/// 16 tokens x 32 rows: tiles 0 and 1.
void amx_16(int steps, const uint8_t* bytes, const int8_t* q, size_t q_row_bytes, int32_t* c) {
    TRIT_TILE_LOAD(0, c, kStride);
    TRIT_TILE_LOAD(1, c + 16, kStride);
    for (int s = 0; s < steps; ++s, q += kAmxInputs, bytes += 16 * kStride) {
        TRIT_TILE_LOAD(4, q, q_row_bytes);
        TRIT_TILE_LOAD(6, bytes, kStride);
        TRIT_TILE_DPBSUD(0, 4, 6);
        TRIT_TILE_LOAD(7, bytes + 64, kStride);
        TRIT_TILE_DPBSUD(1, 4, 7);
    }
    TRIT_TILE_STORE(0, c, kStride);
    TRIT_TILE_STORE(1, c + 16, kStride);
}

/// 32 tokens x 32 rows: tiles 0 to 3.
void amx_32(int steps, const uint8_t* bytes, const int8_t* q, size_t q_row_bytes, int32_t* c) {
    int32_t* lower = c + kAmxTokens * TRIT_PANEL_ROWS;
    TRIT_TILE_LOAD(0, c, kStride);
    TRIT_TILE_LOAD(1, c + 16, kStride);
    TRIT_TILE_LOAD(2, lower, kStride);
    TRIT_TILE_LOAD(3, lower + 16, kStride);
    for (int s = 0; s < steps; ++s, q += kAmxInputs, bytes += 16 * kStride) {
        TRIT_TILE_LOAD(4, q, q_row_bytes);
        TRIT_TILE_LOAD(6, bytes, kStride);
        TRIT_TILE_DPBSUD(0, 4, 6);
        TRIT_TILE_LOAD(7, bytes + 64, kStride);
        TRIT_TILE_DPBSUD(1, 4, 7);
        TRIT_TILE_LOAD(5, q + kAmxTokens * q_row_bytes, q_row_bytes);
        TRIT_TILE_DPBSUD(2, 5, 6);
        TRIT_TILE_DPBSUD(3, 5, 7);
    }
    TRIT_TILE_STORE(0, c, kStride);
    TRIT_TILE_STORE(1, c + 16, kStride);
    TRIT_TILE_STORE(2, lower, kStride);
    TRIT_TILE_STORE(3, lower + 16, kStride);
}

/// How the many-token kernels multiply a chunk: by tiles, where there is enough for them.
struct AmxTiles {
    static constexpr int kDirect = 4;   ///< a tile is 16 tokens; with more than this it is worth its padding
    static constexpr int kChunk = 512;  ///< inputs of 2 bits unpacked at once: 32 KB
    static constexpr int kTritChunk = 320;  ///< the same for five trits: whole steps of 20, whole tiles of 64

    static void run(int fours, const uint8_t* bytes, const int8_t* q, size_t q_row_bytes, int m, bool first,
                    int32_t* c) {
        const int steps = fours * 4 / kAmxInputs;
        const int tokens = m / kAmxTokens * kAmxTokens;
        if (steps == 0 || tokens == 0) {
            return tiles(fours, bytes, q, q_row_bytes, m, first, c);
        }
        if (first) {
            std::memset(c, 0, static_cast<size_t>(tokens) * TRIT_PANEL_ROWS * sizeof(*c));
        }
        {
            const Tiles8 configured;
            for (int rows = 0; rows < TRIT_PANEL_ROWS; rows += 32) {
                int j = 0;
                for (; j + 2 * kAmxTokens <= tokens; j += 2 * kAmxTokens) {
                    amx_32(steps, bytes + 4 * rows, q + static_cast<size_t>(j) * q_row_bytes, q_row_bytes,
                           c + j * TRIT_PANEL_ROWS + rows);
                }
                if (j < tokens) {
                    amx_16(steps, bytes + 4 * rows, q + static_cast<size_t>(j) * q_row_bytes, q_row_bytes,
                           c + j * TRIT_PANEL_ROWS + rows);
                }
            }
        }
        const int done = steps * kAmxInputs / 4;
        if (done < fours) {  // these tokens' last inputs
            tiles(fours - done, bytes + static_cast<size_t>(done) * kStride, q + 4 * done, q_row_bytes,
                  tokens, false, c);
        }
        if (tokens < m) {
            tiles(fours, bytes, q + static_cast<size_t>(tokens) * q_row_bytes, q_row_bytes, m - tokens, first,
                  c + tokens * TRIT_PANEL_ROWS);
        }
    }

    /// The rate of the matrix unit: 4 accumulating tiles, 2 of each operand, as in the prefill step.
    static int64_t mac_loop(int64_t rounds) {
        alignas(64) static const uint8_t ones[1024] = {1, 1, 1, 1};
        const Tiles8 configured;
        TRIT_TILE_LOAD(0, ones, 64);
        TRIT_TILE_LOAD(1, ones, 64);
        TRIT_TILE_LOAD(2, ones, 64);
        TRIT_TILE_LOAD(3, ones, 64);
        TRIT_TILE_LOAD(4, ones, 64);
        TRIT_TILE_LOAD(5, ones, 64);
        TRIT_TILE_LOAD(6, ones, 64);
        TRIT_TILE_LOAD(7, ones, 64);
        for (int64_t round = 0; round < rounds; ++round) {
            TRIT_TILE_DPBSUD(0, 4, 6);
            TRIT_TILE_DPBSUD(1, 4, 7);
            TRIT_TILE_DPBSUD(2, 5, 6);
            TRIT_TILE_DPBSUD(3, 5, 7);
        }
        return rounds * 4 * 16 * 16 * 64;
    }
};

constexpr trit_panel_fn panel_2_bits = panel_by<TwoBits, AmxTiles>;
constexpr trit_panel_fn panel_1_bit = panel_by<OneBit, AmxTiles>;
constexpr trit_mac_loop_fn mac_loop = AmxTiles::mac_loop;

}  // namespace
TRIT_TARGET_END

#include "kernels/tiers/kernels-inl.h"

extern "C" const trit_tier trit_tier_avx512_amx = with_trits<AmxTiles>(with_q6_k(with_kernels(kAbsent)));

#else

extern "C" const trit_tier trit_tier_avx512_amx = kAbsent;

#endif
