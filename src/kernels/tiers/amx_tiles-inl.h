// SPDX-License-Identifier: MIT
/// AMX's tile registers as the avx512_amx tier uses them: 8 tiles of 16 rows x 64 bytes.
///
/// With TRIT_EMULATE they are arrays and plain loops (Intel 64 SDM vol. 2, TDPBSUD), so that the tier's
/// order of bytes can be tested on a machine without AMX. Such a build is for tests only.
#ifndef TRIT_AMX_TILES_H
#define TRIT_AMX_TILES_H

/// What LDTILECFG reads (SDM vol. 1, 18.2).
struct alignas(64) AmxConfig {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};
static_assert(sizeof(AmxConfig) == 64, "one cache line");

#ifdef TRIT_EMULATE

struct AmxTile {
    alignas(64) uint8_t bytes[16][64];
};
inline AmxTile* amx_tiles() {
    static thread_local AmxTile tiles[8];
    return tiles;
}
#define TRIT_TILE_LOAD_CONFIG(p) ((void)(p))
#define TRIT_TILE_STORE_CONFIG(p) ((void)(p))
#define TRIT_TILE_LOAD(t, base, stride)   \
    for (int row_ = 0; row_ < 16; ++row_) \
    std::memcpy(amx_tiles()[t].bytes[row_], reinterpret_cast<const char*>(base) + row_ * (stride), 64)
#define TRIT_TILE_STORE(t, base, stride)  \
    for (int row_ = 0; row_ < 16; ++row_) \
    std::memcpy(reinterpret_cast<char*>(base) + row_ * (stride), amx_tiles()[t].bytes[row_], 64)
#define TRIT_TILE_DPBSUD(c, a, b) amx_dpbsud(amx_tiles()[c], amx_tiles()[a], amx_tiles()[b])

/// c[m][n] += sum over k and i of int8 a[m][4 k + i] * uint8 b[k][4 n + i].
inline void amx_dpbsud(AmxTile& c, const AmxTile& a, const AmxTile& b) {
    for (int m = 0; m < 16; ++m) {
        for (int n = 0; n < 16; ++n) {
            int32_t sum = 0;
            std::memcpy(&sum, &c.bytes[m][4 * n], sizeof(sum));
            for (int k = 0; k < 16; ++k) {
                for (int i = 0; i < 4; ++i) {
                    sum += static_cast<int8_t>(a.bytes[m][4 * k + i]) * b.bytes[k][4 * n + i];
                }
            }
            std::memcpy(&c.bytes[m][4 * n], &sum, sizeof(sum));
        }
    }
}

#else

// The empty statements keep gcc 12 from dropping the stores to the configuration: its intrinsics declare 8 of
// the 64 bytes.
#define TRIT_TILE_LOAD_CONFIG(p)                    \
    do {                                            \
        __asm__ volatile("" : : "r"(p) : "memory"); \
        _tile_loadconfig(p);                        \
    } while (0)
#define TRIT_TILE_STORE_CONFIG(p)                   \
    do {                                            \
        _tile_storeconfig(p);                       \
        __asm__ volatile("" : : "r"(p) : "memory"); \
    } while (0)
#define TRIT_TILE_LOAD(t, base, stride) _tile_loadd(t, base, stride)
#define TRIT_TILE_STORE(t, base, stride) _tile_stored(t, base, stride)
#define TRIT_TILE_DPBSUD(c, a, b) _tile_dpbsud(c, a, b)

#endif

#endif  // TRIT_AMX_TILES_H
