// SPDX-License-Identifier: MIT
/// The loops of panel_fields.cpp, which includes them once for each instruction set, in a namespace of its
/// own.

void prefetch([[maybe_unused]] const uint8_t* p) {
#if defined(__GNUC__)
    __builtin_prefetch(p);
#endif
}

/// Four bytes of each of 16 rows side by side.
void gather_run(const uint8_t* run, size_t row_bytes, uint32_t* packed) {
    for (int r = 0; r < kGroupRows; ++r, run += row_bytes) {
        prefetch(run + kGroupRows * row_bytes);  // what the next group reads here
        for (int q = 0; q < kQuads; ++q) {
            std::memcpy(packed + q * kWords + r, run + 4 * q, 4);
        }
    }
}

template <trit_packing kPacking>
struct Packing;

template <>
struct Packing<TRIT_PACKING_2_BITS> {
    static constexpr int kVectors = 4;     ///< of codes that become one
    static constexpr int kSide = kGroups;  ///< groups whose vectors follow each other
    static uint32_t word(uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t) {
        return a | b << 2 | c << 4 | d << 6;
    }
};

template <>
struct Packing<TRIT_PACKING_5_TRITS> {
    static constexpr int kVectors = 5;
    static constexpr int kSide = kGroups / 2;
    static uint32_t word(uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e) {
        // Largest byte 2 * (1 + 3 + 9 + 27 + 81) = 242: no carry.
        d += e + e + e;
        c += d + d + d;
        b += c + c + c;
        return a + b + b + b;
    }
};

/// Codes of 16 rows and some runs: those that become field v of a step's byte follow those of the step
/// before.
template <int kVectors>
struct Codes {
    static constexpr int kSteps = kRuns * kRunVectors / kVectors;
    uint32_t words[kVectors][kSteps * kWords];

    /// Returns bits where a code is 3.
    uint32_t unpack(const FieldLayout& layout, const Packed& packed, int runs) {
        uint32_t threes = 0;
        for (int q = 0; q < runs * kQuads; ++q) {
            uint32_t four[kWords];  // a copy, which no other write can change
            std::memcpy(four, packed + q * kWords, sizeof(four));
            for (int f = 0; f < kFields; ++f) {
                const int v = (q / kQuads * kFields + f) * kQuads + q % kQuads;
                const int shift = layout.shift[f];
                uint32_t* to = words[v % kVectors] + v / kVectors * kWords;
                for (int i = 0; i < kWords; ++i) {
                    to[i] = four[i] >> shift & kLowFields;
                }
            }
        }
        for (int i = 0; i < runs * kQuads * kWords; ++i) {
            threes |= packed[i] & packed[i] >> 1 & kLowBits;
        }
        for (int v = runs * kRunVectors; v % kVectors != 0; ++v) {
            std::memset(words[v % kVectors] + v / kVectors * kWords, 0, kVectorBytes);
        }
        return threes;
    }
};

template <trit_packing kPacking>
bool pack(int64_t k, const FieldLayout& layout, const uint8_t* row, size_t row_bytes, uint8_t* panel) {
    using P = Packing<kPacking>;
    using C = Codes<P::kVectors>;
    const int64_t runs = k / FieldLayout::kInputs;
    const int64_t steps = (runs * kRunVectors + P::kVectors - 1) / P::kVectors;
    uint32_t threes = 0;
    for (int g = 0; g < kGroups; ++g, row += kGroupRows * row_bytes) {
        uint8_t* out =
            panel + static_cast<size_t>(g / P::kSide * steps * P::kSide + g % P::kSide) * kVectorBytes;
        for (int64_t first = 0, step = 0; first < runs; first += kRuns, step += C::kSteps) {
            Packed packed;
            C codes;
            uint32_t words[C::kSteps * kWords];
            const auto here = static_cast<int>(std::min<int64_t>(kRuns, runs - first));
            for (int i = 0; i < here; ++i) {
                const int64_t run = first + i;
                gather_run(row + static_cast<size_t>(run / layout.runs) * layout.block_bytes +
                               static_cast<size_t>(run % layout.runs) * FieldLayout::kBytes,
                           row_bytes, packed + i * kQuads * kWords);
            }
            // Not at once: words of two stores that are still on their way are waited for.
            threes |= codes.unpack(layout, packed, here);
            const auto last = static_cast<int>(std::min<int64_t>(C::kSteps, steps - step));
            const auto& w = codes.words;
            for (int i = 0; i < last * kWords; ++i) {
                words[i] = P::word(w[0][i], w[1][i], w[2][i], w[3][i], w[P::kVectors - 1][i]);
            }
            for (int s = 0; s < last; ++s, out += P::kSide * kVectorBytes) {
                std::memcpy(out, words + s * kWords, kVectorBytes);
            }
        }
    }
    return threes == 0;
}
