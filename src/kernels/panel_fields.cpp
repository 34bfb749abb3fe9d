// SPDX-License-Identifier: MIT
/// Bytes are gathered while four codes still share one, then taken apart and put together for 16 rows at
/// once. All is done on words of four codes, which compilers turn into the widest registers there are;
/// nothing crosses from one byte to the next. So the loops are compiled a second time for AVX2.
#include "kernels/panel_fields.h"

#include <algorithm>
#include <cstring>

#include "kernels/tier.h"

namespace trit {
namespace {

constexpr int kGroupRows = 16;
constexpr int kGroups = TRIT_PANEL_ROWS / kGroupRows;
constexpr int kWords = kGroupRows;  ///< of a vector: 16 rows x 4 neighbouring inputs
constexpr size_t kVectorBytes = kWords * sizeof(uint32_t);
constexpr int kFields = 4;
constexpr int kRunVectors = FieldLayout::kInputs / 4;
/// Runs that are taken together: whole steps of both packings, and their vectors fit the first-level cache.
constexpr int kRuns = 5;
constexpr uint32_t kLowBits = 0x55555555u;
constexpr uint32_t kLowFields = 0x03030303u;

constexpr int kQuads = FieldLayout::kBytes / 4;

/// 16 rows of some runs, four codes to a byte.
using Packed = uint32_t[kRuns * kQuads * kWords];

using Pack = bool (*)(int64_t k, const FieldLayout& layout, const uint8_t* row, size_t row_bytes,
                      uint8_t* panel);

namespace baseline {
#include "kernels/panel_fields-inl.h"
constexpr Pack kPack[] = {pack<TRIT_PACKING_2_BITS>, pack<TRIT_PACKING_5_TRITS>};
}  // namespace baseline

#ifdef TRIT_X86
TRIT_TARGET_BEGIN("avx2")
namespace avx2 {
#include "kernels/panel_fields-inl.h"
constexpr Pack kPack[] = {pack<TRIT_PACKING_2_BITS>, pack<TRIT_PACKING_5_TRITS>};
}  // namespace avx2
TRIT_TARGET_END
#endif

Pack pack_for([[maybe_unused]] const trit_tier& tier, trit_packing packing) {
    const int i = packing == TRIT_PACKING_2_BITS ? 0 : 1;
#ifdef TRIT_X86
    if (tier.rank > 0) {  // every tier but the scalar one has AVX2
        return avx2::kPack[i];
    }
#endif
    return baseline::kPack[i];
}

}  // namespace

bool pack_fields(const trit_tier& tier, trit_packing packing, int64_t k, const FieldLayout& layout,
                 const uint8_t* row, size_t row_bytes, uint8_t* panel) {
    return pack_for(tier, packing)(k, layout, row, row_bytes, panel);
}

}  // namespace trit
