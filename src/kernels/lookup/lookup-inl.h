// SPDX-License-Identifier: MIT
/// Prefill by tables over tokens. Every byte of a panel of 2 bits holds the codes of four inputs: it is the
/// number of an entry in a table of those inputs' partial sums, for all tokens of a call at once. Included by
/// lookup_<instruction set>-inl.h behind the vocabulary, in its target region and namespace.

constexpr int whole_log2(size_t number) { return number < 2 ? 0 : 1 + whole_log2(number / 2); }

/// C, which utils/codegen writes and whose rules it checks:
///     kName, kTier  of the kernel
///     kPacking      TRIT_PACKING_2_BITS
///     kRegisters    of sums, kLanes tokens each
///     kSteps        of 16 inputs, four tables each, in one pass over the rows
///     kRows         that one set of tables serves
///     kLeastTokens  fewer are left to the tier's own kernel
template <class C>
struct Lookup {
    static constexpr int kTokens = C::kRegisters * kLanes;
    static constexpr int kInputs = 16 * C::kSteps;
    static constexpr int kTables = 4 * C::kSteps;
    static constexpr size_t kEntry = kTokens * sizeof(int16_t);
    static constexpr int kEntryBits = whole_log2(kEntry);
    // Codes are 0..2, so a table ends at the byte of four codes 2.
    static constexpr size_t kTable = (0b10101010 + 1) * kEntry;
    // Passes whose sums stay below 2^15: an input adds at most 128.
    static constexpr int kPasses = 32767 / (128 * kInputs);
    static_assert(C::kPacking == TRIT_PACKING_2_BITS, "a byte has the codes of four inputs");
    static_assert(size_t{1} << kEntryBits == kEntry, "entries lie at powers of two");

    struct Work {
        alignas(64) char tables[kTables * kTable];
        alignas(64) int16_t inputs[kInputs * kTokens];
        alignas(64) int16_t sums[C::kRows * kTokens];
        alignas(64) int32_t wide[C::kRows * kTokens];
    };

    /// One table: sum of (code - 1) * x over inputs 0, 4, 8 and 12 of x, lowest bits first.
    static void build_table(const int16_t* x, char* table) {
        for (int part = 0; part < kTokens; part += kLanes) {
            const Sums x0 = load(x + part);
            const Sums x1 = load(x + part + 4 * kTokens);
            const Sums x2 = load(x + part + 8 * kTokens);
            const Sums x3 = load(x + part + 12 * kTokens);
            Sums s3 = subtract(zero(), add(add(x0, x1), add(x2, x3)));
            char* at = table + part * sizeof(int16_t);
            for (int u3 = 0; u3 < 3; ++u3, s3 = add(s3, x3)) {
                Sums s2 = s3;
                for (int u2 = 0; u2 < 3; ++u2, s2 = add(s2, x2)) {
                    Sums s1 = s2;
                    for (int u1 = 0; u1 < 3; ++u1, s1 = add(s1, x1)) {
                        char* entry = at + static_cast<size_t>(64 * u3 + 16 * u2 + 4 * u1) * kEntry;
                        const Sums middle = add(s1, x0);
                        store(entry, s1);
                        store(entry + kEntry, middle);
                        store(entry + 2 * kEntry, add(middle, x0));
                    }
                }
            }
        }
    }

    /// Byte kByte of `word`, times the size of an entry: one shift and one mask.
    template <int kByte>
    static TRIT_INLINE uint32_t entry_at(uint32_t word) {
        constexpr int kShift = 8 * kByte - kEntryBits;
        constexpr uint32_t kMask = 0xFFu << kEntryBits;
        if constexpr (kShift > 0) {
            return word >> kShift & kMask;
        } else {
            return word << -kShift & kMask;
        }
    }

    /// Adds row r's entry of table kNumber to its sums; `word` has the codes of four tables.
    template <int kNumber, size_t... kRegister>
    static TRIT_INLINE void add_entry(const uint8_t* panel, int r, const char* tables, uint32_t& word,
                                      Sums* s) {
        if constexpr (kNumber % 4 == 0) {
            std::memcpy(&word, panel + 4 * r + 64 * kNumber, sizeof(word));
        }
        const char* entry = tables + kNumber * kTable + entry_at<kNumber % 4>(word);
        ((s[kRegister] = add(s[kRegister], load(entry + kRegister * sizeof(Sums)))), ...);
    }

    /// Adds kInputs inputs to the sums of all rows. panel: the inputs' first byte in the first panel.
    template <bool kFirst, size_t... kRegister, size_t... kNumber>
    static void add_rows(const uint8_t* panel, size_t panel_bytes, int count, const char* tables,
                         int16_t* sums, std::index_sequence<kRegister...>, std::index_sequence<kNumber...>) {
        for (int p = 0; p < count; ++p, panel += panel_bytes) {
            for (int line = 0; line < kTables; ++line) {
                prefetch(panel + panel_bytes + 64 * line);
            }
            for (int r = 0; r < TRIT_PANEL_ROWS; ++r, sums += kTokens) {
                Sums s[] = {kFirst ? zero() : load(sums + kRegister * kLanes)...};
                uint32_t word = 0;
                (add_entry<kNumber, kRegister...>(panel, r, tables, word, s), ...);
                (store(sums + kRegister * kLanes, s[kRegister]), ...);
            }
        }
    }

    static void multiply(int64_t k, const uint8_t* panels, size_t panel_bytes, int count, const int8_t* q,
                         size_t q_row_bytes, int m, void* memory, int32_t* c, size_t c_stride) {
        constexpr std::make_index_sequence<C::kRegisters> kAllRegisters{};
        constexpr std::make_index_sequence<kTables> kAllTables{};
        Work& work = *static_cast<Work*>(memory);
        const int rows = count * TRIT_PANEL_ROWS;
        const int64_t passes = k / kInputs;
        for (int64_t pass = 0; pass < passes; ++pass) {
            for (int step = 0; step < C::kSteps; ++step) {
                int16_t* x = work.inputs + 16 * kTokens * step;
                spread(q + 16 * (C::kSteps * pass + step), q_row_bytes, m, kTokens, x);
                for (int byte = 0; byte < 4; ++byte) {
                    build_table(x + byte * kTokens,
                                work.tables + static_cast<size_t>(4 * step + byte) * kTable);
                }
            }
            const uint8_t* panel = panels + 256 * C::kSteps * pass;
            if (pass % kPasses == 0) {
                add_rows<true>(panel, panel_bytes, count, work.tables, work.sums, kAllRegisters, kAllTables);
            } else {
                add_rows<false>(panel, panel_bytes, count, work.tables, work.sums, kAllRegisters, kAllTables);
            }
            if (pass % kPasses == kPasses - 1 || pass == passes - 1) {
                for (int i = 0; i < rows * kTokens; i += kLanes) {
                    widen(load(work.sums + i), pass < kPasses, work.wide + i);
                }
            }
        }
        gather(work.wide, rows, kTokens, m, c, c_stride);
    }
};

template <class C>
constexpr trit_lookup_kernel lookup_kernel() {
    using K = Lookup<C>;
    constexpr int kPanels = C::kRows / TRIT_PANEL_ROWS;
    return {C::kName,    C::kTier,        C::kPacking, supported,
            K::kTokens,  C::kLeastTokens, kPanels,     sizeof(typename K::Work),
            K::multiply, nullptr};
}
