// SPDX-License-Identifier: MIT
#include "matrix/packed_matrix.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#include "kernels/align.h"
#include "kernels/registry.h"
#include "matrix/tuning.h"

namespace trit {
namespace {

constexpr size_t kHeaderBytes = PackedMatrix::kHeaderBytes;
constexpr size_t kScalesBytes = PackedMatrix::kScalesBytes;
static_assert(sizeof(PackedMatrix::Header) <= kHeaderBytes, "the header has its own cache line");

int64_t panels_of(int64_t n) { return (n + TRIT_PANEL_ROWS - 1) / TRIT_PANEL_ROWS; }

/// IEEE half to single precision; exact.
float half_to_float(uint16_t half) {
    const uint32_t magnitude = static_cast<uint32_t>(half & 0x7FFFu) << 13;
    // Scaling by 2^112 moves the exponent's bias from 15 to 127, and makes subnormal halves normal.
    float value = 0.0f;
    std::memcpy(&value, &magnitude, sizeof(value));
    value *= 0x1p112f;
    if ((half & 0x7C00u) == 0x7C00u) {
        const uint32_t bits = 0x7F800000u | magnitude;
        std::memcpy(&value, &bits, sizeof(value));
    }
    return (half & 0x8000u) != 0 ? -value : value;
}

/// Calls work(i) for 0 <= i < count on several threads, until one returns false.
template <typename Work>
bool for_each(int64_t count, int threads, const Work& work) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> ok{true};
    const auto run = [&] {
        for (int64_t i = next++; i < count && ok; i = next++) {
            if (!work(i)) {
                ok = false;
            }
        }
    };
    std::vector<std::thread> others;
    for (int t = 1; t < std::min<int64_t>(threads, count); ++t) {
        others.emplace_back(run);
    }
    run();
    for (std::thread& thread : others) {
        thread.join();
    }
    return ok;
}

bool is_zero(uint16_t half) { return (half & 0x7FFFu) == 0; }
/// Finite, and not below zero: training's scales are means of magnitudes.
bool is_scale(uint16_t half) { return (half & 0x7C00u) != 0x7C00u && (half <= 0x8000u); }

constexpr const char* kBadCode = "holds a code that stands for no weight";
constexpr const char* kBadScale = "has a scale below 0 or no number";
/// No fault: a weight of +2, which only panels of two bits hold.
constexpr const char* kHasCode3 = "holds a weight of +2";

/// If every scale of a tensor has the same bits, that scale. Blocks with scale 0 go with any, where a code
/// stands for 0.
bool one_scale(const Encoding& e, const Shape& shape, const uint8_t* data, int threads, uint16_t* scale) {
    constexpr uint32_t kMet = 1u << 16;
    std::atomic<uint32_t> found{0};  // kMet and the scale, once a block that does not go with any was met
    const bool same = for_each(shape.n * shape.count, threads, [&](int64_t i) {
        const uint8_t* row = data + static_cast<size_t>(i) * e.row_bytes(shape.k);
        for (int64_t block = 0; block < shape.k / e.block; ++block) {
            const uint16_t half = e.scale(row, block);
            if (is_zero(half) && !e.only_signs) {
                continue;
            }
            const uint32_t met = half | kMet;
            uint32_t seen = 0;
            if (!found.compare_exchange_strong(seen, met) && seen != met) {
                return false;
            }
        }
        return true;
    });
    *scale = static_cast<uint16_t>(found.load());
    return same;
}

/// If every matrix of a stack has one scale, those scales.
bool matrix_scales(const Encoding& e, const Shape& shape, const uint8_t* data, int threads, float* scales) {
    const size_t bytes = static_cast<size_t>(shape.n) * e.row_bytes(shape.k);
    for (int64_t i = 0; i < shape.count; ++i) {
        uint16_t same = 0;
        if (!one_scale(e, {shape.k, shape.n, 1}, data + static_cast<size_t>(i) * bytes, threads, &same)) {
            return false;
        }
        scales[i] = half_to_float(same);
    }
    return true;
}

/// Bytes of the scales of a stack's matrices, in whole cache lines.
size_t stack_bytes(const Shape& shape) {
    return shape.count == 1 ? 0 : align_up(static_cast<size_t>(shape.count) * sizeof(float));
}

/// The scale of `blocks` neighbouring blocks of a row, from that one on; the first that is not zero, since
/// blocks with scale 0 go with any.
uint16_t shared_scale(const Encoding& e, const uint8_t* row, int64_t block, int64_t blocks) {
    for (int64_t i = 0; i < blocks; ++i) {
        const uint16_t half = e.scale(row, block + i);
        if (!is_zero(half)) {
            return half;
        }
    }
    return 0;
}

/// Whether blocks of each row share scales, so many at a time; fewer at its end.
bool blocks_share(const Encoding& e, const Shape& shape, const uint8_t* data, int threads, int64_t blocks) {
    const int64_t all = shape.k / e.block;
    return for_each(shape.n * shape.count, threads, [&](int64_t i) {
        const uint8_t* row = data + static_cast<size_t>(i) * e.row_bytes(shape.k);
        for (int64_t first = 0; first < all; first += blocks) {
            const int64_t some = std::min(blocks, all - first);
            const uint16_t shared = shared_scale(e, row, first, some);
            for (int64_t block = first; block < first + some; ++block) {
                const uint16_t half = e.scale(row, block);
                if (half != shared && (e.only_signs || !is_zero(half))) {
                    return false;
                }
            }
        }
        return true;
    });
}

/// The rows of one panel, as codes.
struct Rows {
    std::vector<uint8_t> codes;
    int count;
    bool has_code_3;
};

/// Returns nullptr, or what is wrong with the data.
const char* unpack_rows(const Encoding& e, const PackedMatrix::Header& h, const uint8_t* row, Rows* rows) {
    const auto k = static_cast<size_t>(h.k);
    rows->codes.resize(k * TRIT_PANEL_ROWS);
    uint8_t* codes = rows->codes.data();
    for (int r = 0; r < rows->count; ++r, row += e.row_bytes(h.k), codes += k) {
        e.unpack(h.k, row, codes);
        for (int64_t block = 0; e.group() != 0 && block < h.k / e.block; ++block) {
            const uint16_t scale = e.scale(row, block);
            if (!is_scale(scale)) {
                return kBadScale;
            }
            if (h.group != e.group() && is_zero(scale) && !e.only_signs) {
                std::memset(codes + block * e.block, 1, static_cast<size_t>(e.block));
            }
        }
        uint8_t code_3 = 0;
        for (size_t i = 0; i < k; ++i) {
            code_3 |= static_cast<uint8_t>(codes[i] & codes[i] >> 1);
        }
        if (code_3 != 0 && !e.has_code_3) {
            return kBadCode;
        }
        rows->has_code_3 = rows->has_code_3 || code_3 != 0;
    }
    return nullptr;
}

/// Whether a panel without groups can be written straight from the fields of its rows.
bool has_plain_fields(const Encoding& e, const PackedMatrix::Header& h, const uint8_t* row, int count) {
    if (e.fields.runs == 0 || h.group != 0 || h.packing >= TRIT_TIER_PACKINGS || count != TRIT_PANEL_ROWS) {
        return false;
    }
    // A block without weights may hold any codes; the slower way drops them, and names a broken scale.
    for (int64_t block = 0; e.group() != 0 && block < h.k / e.block * count; ++block) {
        const uint16_t scale = e.scale(row, block);
        if (is_zero(scale) || !is_scale(scale)) {
            return false;
        }
    }
    return true;
}

/// row: the panel's first row in the file. Returns nullptr, or what is wrong with the data.
const char* write_panel(const trit_tier& tier, const Encoding& e, const PackedMatrix::Header& h,
                        const uint8_t* row, int count, uint8_t* panel, std::atomic<bool>* has_code_3) {
    const auto packing = static_cast<trit_packing>(h.packing);
    if (has_plain_fields(e, h, row, count)) {
        return pack_fields(tier, packing, h.k, e.fields, row, e.row_bytes(h.k), panel) ? nullptr : kBadCode;
    }
    thread_local Rows rows;
    rows.count = count;
    rows.has_code_3 = false;
    const char* fault = unpack_rows(e, h, row, &rows);
    if (fault != nullptr) {
        return fault;
    }
    if (rows.has_code_3) {
        *has_code_3 = true;
        if (packing != TRIT_PACKING_2_BITS) {
            return kHasCode3;
        }
    }
    const auto k = static_cast<size_t>(h.k);
    if (h.group == 0) {
        return trit_panel_pack(packing, h.k, count, rows.codes.data(), k, panel) != 0 ? nullptr : kBadCode;
    }
    for (int64_t first = 0; first < h.k; first += h.group) {
        const int64_t inputs = std::min(h.group, h.k - first);
        uint16_t scales[TRIT_PANEL_ROWS] = {};
        for (int r = 0; r < count; ++r) {
            scales[r] = shared_scale(e, row + static_cast<size_t>(r) * e.row_bytes(h.k), first / e.block,
                                     inputs / e.block);
        }
        std::memcpy(panel, scales, sizeof(scales));
        panel += kScalesBytes;
        trit_panel_pack(packing, inputs, count, rows.codes.data() + first, k, panel);
        panel += trit_panel_bytes(packing, inputs);
    }
    return nullptr;
}

/// Writes what is behind the header, and fills in its has_code_3.
const char* write_panels(const trit_tier& tier, const Encoding& e, const Shape& shape, const uint8_t* data,
                         int threads, PackedMatrix::Header* header, uint8_t* memory) {
    const PackedMatrix::Header h = *header;
    uint8_t* panels = memory + h.scales_bytes;
    std::atomic<bool> has_code_3{false};
    const int64_t per_matrix = panels_of(shape.n);
    std::atomic<const char*> found{nullptr};
    for_each(per_matrix * shape.count, threads, [&](int64_t i) {
        const int64_t first = i % per_matrix * TRIT_PANEL_ROWS;
        const int64_t row = i / per_matrix * shape.n + first;
        const int count = static_cast<int>(std::min<int64_t>(TRIT_PANEL_ROWS, shape.n - first));
        const uint8_t* rows = data + static_cast<size_t>(row) * e.row_bytes(shape.k);
        const char* fault = write_panel(tier, e, h, rows, count, panels + i * h.panel_bytes, &has_code_3);
        if (fault != nullptr) {
            found = fault;
        }
        return fault == nullptr;
    });
    header->has_code_3 = has_code_3 ? 1 : 0;
    return found;
}

}  // namespace

size_t PackedMatrix::panel_bytes(trit_packing packing, int64_t k, int64_t group) {
    if (group == 0) {
        return trit_panel_bytes(packing, k);
    }
    const size_t rest = k % group != 0 ? kScalesBytes + trit_panel_bytes(packing, k % group) : 0;
    return static_cast<size_t>(k / group) * (kScalesBytes + trit_panel_bytes(packing, group)) + rest;
}

bool PackedMatrix::possible(const trit_tier& tier, const Encoding& e, const Shape& shape) {
    const int64_t align = std::max<int64_t>(e.group(), 32);
    return tier.panel[TRIT_PACKING_2_BITS] != nullptr && shape.k % align == 0 &&
           shape.k <= TRIT_PANEL_MAX_K && shape.n >= TRIT_PANEL_ROWS / 2;
}

trit_packing PackedMatrix::packing_for(const trit_tier& tier, const Encoding& e, const Shape& shape) {
    if (e.only_signs) {
        return TRIT_PACKING_1_BIT;
    }
    // The tier may be another one than was asked or tuned for: tests compare several.
    for (const trit_packing packing : {trit_packing_asked(), tuned_packing(shape.n, shape.k)}) {
        if (packing != TRIT_PACKING_COUNT && is_readable(tier, packing)) {
            return packing;
        }
    }
    return is_readable(tier, TRIT_PACKING_5_TRITS) ? TRIT_PACKING_5_TRITS : TRIT_PACKING_2_BITS;
}

trit_packing PackedMatrix::packing_for(const trit_tier& tier, const Encoding& e, int64_t group) {
    if (e.only_signs) {
        return TRIT_PACKING_1_BIT;
    }
    // Where a group of 64 ends within a step, five trits take as many bytes as two bits.
    const bool five = trit_packing_asked() == TRIT_PACKING_5_TRITS && group >= kGroup &&
                      is_readable(tier, TRIT_PACKING_5_TRITS);
    return five ? TRIT_PACKING_5_TRITS : TRIT_PACKING_2_BITS;
}

size_t PackedMatrix::bytes(const trit_tier& tier, const Encoding& e, const Shape& shape) {
    size_t per_panel = panel_bytes(packing_for(tier, e, shape), shape.k, 0);
    if (e.has_code_3) {
        per_panel = std::max(per_panel, panel_bytes(TRIT_PACKING_2_BITS, shape.k, 0));
    }
    if (e.group() != 0) {
        per_panel = std::max(per_panel, panel_bytes(packing_for(tier, e, e.group()), shape.k, e.group()));
    }
    return kHeaderBytes + (e.group() == 0 ? 0 : stack_bytes(shape)) +
           per_panel * static_cast<size_t>(panels_of(shape.n) * shape.count);
}

const char* PackedMatrix::pack(const trit_tier& tier, const Encoding& e, const Shape& shape,
                               const uint8_t* data, int threads, void* memory) {
    Header h{shape.k, shape.n, e.group(), TRIT_PACKING_2_BITS, 0, 0, 0, 0.0f};
    uint16_t same = 0;
    if (e.group() == 0) {
        h.scale = e.tensor_scale(data, shape.k * shape.n * shape.count);
    } else if (one_scale(e, shape, data, threads, &same)) {
        h.group = 0;
        h.scale = half_to_float(same);
    } else if (shape.count > 1 &&
               matrix_scales(e, shape, data, threads,
                             reinterpret_cast<float*>(static_cast<uint8_t*>(memory) + kHeaderBytes))) {
        h.group = 0;
        h.scales_bytes = static_cast<int64_t>(stack_bytes(shape));
    } else if (e.group() < kGroup && blocks_share(e, shape, data, threads, kGroup / e.group())) {
        h.group = kGroup;
    }
    if (!(std::isfinite(h.scale) && h.scale >= 0.0f)) {
        return kBadScale;
    }
    const auto write = [&](trit_packing packing) {
        h.packing = packing;
        h.panel_bytes = static_cast<int64_t>(panel_bytes(packing, h.k, h.group));
        return write_panels(tier, e, shape, data, threads, &h, static_cast<uint8_t*>(memory) + kHeaderBytes);
    };
    const char* fault = write(h.group == 0 ? packing_for(tier, e, shape) : packing_for(tier, e, h.group));
    if (fault == kHasCode3) {
        fault = write(TRIT_PACKING_2_BITS);
    }
    std::memcpy(memory, &h, sizeof(h));
    return fault;
}

size_t PackedMatrix::two_bits_bytes(const Shape& shape) {
    return kHeaderBytes + stack_bytes(shape) +
           trit_panel_bytes(TRIT_PACKING_2_BITS, shape.k) *
               static_cast<size_t>(panels_of(shape.n) * shape.count);
}

PackedMatrix::PackedMatrix(const void* memory)
    : header_(static_cast<const Header*>(memory)),
      panels_(static_cast<const uint8_t*>(memory) + kHeaderBytes) {}

size_t PackedMatrix::used_bytes(int64_t count) const {
    return kHeaderBytes +
           static_cast<size_t>(header_->scales_bytes + panels() * count * header_->panel_bytes);
}

}  // namespace trit
