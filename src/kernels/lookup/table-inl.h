// SPDX-License-Identifier: MIT
/// TL1 and TL2 kernels: few tokens by tables over inputs. An index stands for 2 or 3 weights: it is the
/// number of an entry in a table of these inputs' sums, which a byte shuffle looks up for all rows of a
/// register at once. Included by table_<instruction set>-inl.h behind the vocabulary, in its target region
/// and namespace.

/// TL1 has no signs: the words for them that do nothing.
struct NoSigns {};
inline NoSigns sign_of(NoSigns signs, int) { return signs; }
inline NoSigns next(NoSigns signs) { return signs; }
inline Bytes negate(Bytes v, NoSigns) { return v; }
inline Words add_bytes_of_words(Words sums, Bytes low, Bytes high, NoSigns) {
    return add_bytes_of_words(sums, low, high);
}

/// What 16 entries stand for, as src/kernels/panel.cpp numbers them.
template <int kGroup>
struct Numbering {
    alignas(16) int8_t weights[kGroup][16] = {};  ///< of each input
    alignas(16) int8_t digits[16] = {};  ///< the weights as digits of base 4, that of the first input lowest
    int8_t ones = 0;                     ///< 1 in each digit; added to digits they are codes u of 2 bits

    constexpr Numbering() {
        // TL1: the first input's weight is the lowest digit of base 3. TL2: the highest, and entry 0 is all
        // 0.
        for (int i = 0, place = kGroup == 2 ? 1 : 9, four = 1; i < kGroup; ++i, four *= 4) {
            for (int entry = 0; entry < (kGroup == 2 ? 9 : 14); ++entry) {
                const int weight = (kGroup == 2 ? entry : entry + 13) / place % 3 - 1;
                weights[i][entry] = static_cast<int8_t>(weight);
                digits[entry] = static_cast<int8_t>(digits[entry] + four * weight);
            }
            ones = static_cast<int8_t>(ones + four);
            place = kGroup == 2 ? place * 3 : place / 3;
        }
    }
};

/// C, which trit/tune/codegen writes and whose rules it checks:
///     kName, kTier  of the kernel
///     kPacking      TRIT_PACKING_TL1 or TRIT_PACKING_TL2
///     kRows         BM: rows of one call, for which the tables are built once
///     kInputs       BK: inputs whose tables are there at the same time
///     kBlock        bm: rows whose sums are in registers
///     kUnroll       vectors of indices whose sums stay in 8 bits
///     kNibbles      the two parts of a table: of nibbles of the activations, or the bytes of 16-bit sums
///     kTokens       most tokens of a call
///     kAhead        bytes of prefetch
template <class C>
struct Table {
    static constexpr bool kSigns = C::kPacking == TRIT_PACKING_TL2;
    static constexpr int kGroup = kSigns ? 3 : 2;
    // A panel's step: vectors of indices; in TL2 there is one of signs behind them.
    static constexpr int kStepVectors = kSigns ? 4 : 8;
    static constexpr int kStepInputs = 2 * kGroup * kStepVectors;
    static constexpr int kStepBytes = 64 * (kStepVectors + kSigns);
    static constexpr int kMostSteps = C::kInputs / kStepInputs;
    static constexpr int kRegisters = C::kBlock / kRegisterRows;
    // Two parts of 16 entries each.
    static constexpr int kTableBytes = 32;
    // Steps whose sums fit into 16 bits: an input adds at most 128.
    static constexpr int64_t kWidenSteps = 32767 / (128 * kStepInputs);
    static constexpr Numbering<kGroup> kNumbering{};
    static_assert(kSigns || C::kPacking == TRIT_PACKING_TL1, "panels of table indices");
    static_assert(C::kInputs % kStepInputs == 0, "a step is taken as a whole");

    using StepSigns = std::conditional_t<kSigns, Signs, NoSigns>;

    struct Work {
        alignas(64) int8_t x[kMostSteps * kStepInputs];
        alignas(64) int8_t tables[C::kTokens][kMostSteps * (kStepInputs / kGroup) * kTableBytes];
    };

    /// q: `inputs` inputs; those missing in the last step count as 0.
    static void build_tables(const int8_t* q, int64_t inputs, int8_t* x, int8_t* table) {
        const int64_t steps = (inputs + kStepInputs - 1) / kStepInputs;
        std::memset(x + (steps - 1) * kStepInputs, 0, kStepInputs);
        std::memcpy(x, q, static_cast<size_t>(inputs));
        for (int64_t i = 0; i < steps * kStepInputs; i += kGroup, table += kTableBytes) {
            if constexpr (C::kNibbles) {
                // x = low + 16 high with both in -8..8: an entry is at most 8 * kGroup.
                int8_t low[kGroup];
                int8_t high[kGroup];
                for (int j = 0; j < kGroup; ++j) {
                    high[j] = static_cast<int8_t>((x[i + j] + 8) >> 4);
                    low[j] = static_cast<int8_t>(x[i + j] - 16 * high[j]);
                }
                Entries lows = times(low[0], kNumbering.weights[0]);
                Entries highs = times(high[0], kNumbering.weights[0]);
                for (int j = 1; j < kGroup; ++j) {
                    lows = add_entries(lows, times(low[j], kNumbering.weights[j]));
                    highs = add_entries(highs, times(high[j], kNumbering.weights[j]));
                }
                store_entries(table, lows);
                store_entries(table + 16, highs);
            } else {
                for (int entry = 0; entry < 16; ++entry) {
                    int16_t sum = 0;
                    for (int j = 0; j < kGroup; ++j) {
                        sum = static_cast<int16_t>(sum + x[i + j] * kNumbering.weights[j][entry]);
                    }
                    table[entry] = static_cast<int8_t>(sum & 0xFF);
                    table[16 + entry] = static_cast<int8_t>(sum >> 8);
                }
            }
        }
    }

    /// Adds vectors [kFrom, kTo) of a step to the sums of kBlock rows.
    template <int kFrom, int kTo>
    static inline void add_vectors(const uint8_t* panel, const int8_t* tables, StepSigns* signs,
                                   Words* sums) {
        static_assert(!C::kNibbles || 2 * (kTo - kFrom) * kGroup * 8 <= 127, "sums of 8 bits would wrap");
        Bytes low[kRegisters];
        Bytes high[kRegisters];
        TRIT_UNROLL
        for (int i = 2 * kFrom; i < 2 * kTo; ++i) {
            const Bytes table = load_table(tables + kTableBytes * i);
            const Bytes second = load_table(tables + kTableBytes * i + 16);
            TRIT_UNROLL
            for (int r = 0; r < kRegisters; ++r) {
                const Bytes vector = load(panel + 64 * (i / 2) + kRegisterRows * r);
                const Bytes index = i % 2 == 0 ? low_half(vector) : high_half(vector);
                const auto sign = sign_of(signs[r], i);
                signs[r] = next(signs[r]);
                if constexpr (C::kNibbles) {
                    const Bytes l = negate(look_up(table, index), sign);
                    const Bytes h = negate(look_up(second, index), sign);
                    low[r] = i == 2 * kFrom ? l : add(low[r], l);
                    high[r] = i == 2 * kFrom ? h : add(high[r], h);
                } else {
                    const Bytes l = look_up(table, index);
                    const Bytes h = look_up(second, index);
                    sums[r] = add_bytes_of_words(sums[r], l, h, sign);
                }
            }
        }
        if constexpr (C::kNibbles) {
            TRIT_UNROLL
            for (int r = 0; r < kRegisters; ++r) {
                sums[r] = add_nibbles(sums[r], low[r], high[r]);
            }
        }
    }

    /// Adds a step of a panel, kUnroll vectors in each turn.
    template <int... kTurn>
    static inline void add_step(const uint8_t* panel, const int8_t* tables, Words* sums,
                                std::integer_sequence<int, kTurn...>) {
        StepSigns signs[kRegisters];
        if constexpr (kSigns) {
            TRIT_UNROLL
            for (int r = 0; r < kRegisters; ++r) {
                signs[r] = begin(load(panel + 64 * kStepVectors + kRegisterRows * r));
            }
        }
        (add_vectors<C::kUnroll * kTurn, least(C::kUnroll * (kTurn + 1), kStepVectors)>(panel, tables, signs,
                                                                                        sums),
         ...);
    }
    static constexpr int least(int a, int b) { return a < b ? a : b; }

    /// Adds `steps` steps of a panel to c. ahead: what is read after them.
    static void add_panel(const uint8_t* panel, const uint8_t* ahead, int64_t steps, const int8_t* tables,
                          bool first, int32_t* c) {
        constexpr auto kTurns =
            std::make_integer_sequence<int, (kStepVectors + C::kUnroll - 1) / C::kUnroll>();
        const size_t bytes = static_cast<size_t>(steps) * kStepBytes;
        for (int row = 0; row < TRIT_PANEL_ROWS; row += kRegisters * kRegisterRows) {
            for (int64_t from = 0; from < steps; from += kWidenSteps) {
                const int64_t to = steps - from < kWidenSteps ? steps : from + kWidenSteps;
                Words sums[kRegisters] = {};
                for (int64_t step = from; step < to; ++step) {
                    const size_t at = static_cast<size_t>(step) * kStepBytes;
                    const size_t soon = at + C::kAhead;
                    const uint8_t* line = soon < bytes ? panel + soon : ahead + (soon - bytes);
                    TRIT_UNROLL
                    for (int i = 0; i < kStepBytes; i += 64) {
                        prefetch(line + i);
                    }
                    add_step(panel + at + row, tables + step * (kStepInputs / kGroup) * kTableBytes, sums,
                             kTurns);
                }
                TRIT_UNROLL
                for (int r = 0; r < kRegisters; ++r) {
                    widen(sums[r], first && from == 0, c + row + kRegisterRows * r);
                }
            }
        }
    }

    static void multiply(int64_t k, const uint8_t* panels, size_t panel_bytes, int count, const int8_t* q,
                         size_t q_row_bytes, int m, void* memory, int32_t* c, size_t c_stride) {
        Work& work = *static_cast<Work*>(memory);
        for (int64_t from = 0; from < k; from += C::kInputs) {
            const int64_t inputs = k - from < C::kInputs ? k - from : C::kInputs;
            const int64_t steps = (inputs + kStepInputs - 1) / kStepInputs;
            for (int j = 0; j < m; ++j) {
                build_tables(q + static_cast<size_t>(j) * q_row_bytes + from, inputs, work.x, work.tables[j]);
            }
            const uint8_t* panel = panels + from / kStepInputs * kStepBytes;
            for (int p = 0; p < count; ++p, panel += panel_bytes) {
                for (int j = 0; j < m; ++j) {
                    int32_t* sums = c + static_cast<size_t>(j) * c_stride + p * TRIT_PANEL_ROWS;
                    add_panel(panel, panel + panel_bytes, steps, work.tables[j], from == 0, sums);
                }
            }
        }
    }

    // Where a panel's input is: its index, and the digit in there.
    static constexpr int index_of(int input) { return input / kGroup; }
    static constexpr int digit_of(int input) { return input % kGroup; }

    /// 16 inputs of a panel for each of kStep, which are 0, 1 ..., as steps of 2 bits.
    template <int... kStep>
    static void piece_to_2_bits(const uint8_t* panel, uint8_t* out) {
        constexpr int kIndexes = index_of(16 * sizeof...(kStep) - 1) + 1;
        const Bytes table = load_table(kNumbering.digits);
        const Bytes ones = every(kNumbering.ones);
        for (int row = 0; row < TRIT_PANEL_ROWS; row += kRegisterRows) {
            Bytes u[kIndexes];
            StepSigns signs{};
            TRIT_UNROLL_24
            for (int i = 0; i < kIndexes; ++i) {
                const uint8_t* vectors = panel + i / 8 * kStepBytes + row;
                if constexpr (kSigns) {
                    signs = i % 8 == 0 ? begin(load(vectors + 64 * kStepVectors)) : next(signs);
                }
                const Bytes vector = load(vectors + 64 * (i % 8 / 2));
                const Bytes digits = look_up(table, i % 2 == 0 ? low_half(vector) : high_half(vector));
                u[i] = add(negate(digits, sign_of(signs, i % 8)), ones);
            }
            // Byte i of a step has its inputs i, i + 4, i + 8 and i + 12.
            (store_rows(out + 256 * kStep + 4 * row,
                        {merge(move<digit_of(16 * kStep), 0>(u[index_of(16 * kStep)]),
                               move<digit_of(16 * kStep + 4), 1>(u[index_of(16 * kStep + 4)]),
                               move<digit_of(16 * kStep + 8), 2>(u[index_of(16 * kStep + 8)]),
                               move<digit_of(16 * kStep + 12), 3>(u[index_of(16 * kStep + 12)])),
                         merge(move<digit_of(16 * kStep + 1), 0>(u[index_of(16 * kStep + 1)]),
                               move<digit_of(16 * kStep + 5), 1>(u[index_of(16 * kStep + 5)]),
                               move<digit_of(16 * kStep + 9), 2>(u[index_of(16 * kStep + 9)]),
                               move<digit_of(16 * kStep + 13), 3>(u[index_of(16 * kStep + 13)])),
                         merge(move<digit_of(16 * kStep + 2), 0>(u[index_of(16 * kStep + 2)]),
                               move<digit_of(16 * kStep + 6), 1>(u[index_of(16 * kStep + 6)]),
                               move<digit_of(16 * kStep + 10), 2>(u[index_of(16 * kStep + 10)]),
                               move<digit_of(16 * kStep + 14), 3>(u[index_of(16 * kStep + 14)])),
                         merge(move<digit_of(16 * kStep + 3), 0>(u[index_of(16 * kStep + 3)]),
                               move<digit_of(16 * kStep + 7), 1>(u[index_of(16 * kStep + 7)]),
                               move<digit_of(16 * kStep + 11), 2>(u[index_of(16 * kStep + 11)]),
                               move<digit_of(16 * kStep + 15), 3>(u[index_of(16 * kStep + 15)]))}),
             ...);
        }
    }

    static void to_2_bits(int64_t k, const uint8_t* panel, uint8_t* out) {
        int64_t steps = k / 16;
        if constexpr (kSigns) {
            for (; steps >= 3; steps -= 3, panel += 2 * kStepBytes, out += 3 * 256) {
                piece_to_2_bits<0, 1, 2>(panel, out);
            }
            if (steps == 2) {
                piece_to_2_bits<0, 1>(panel, out);
            } else if (steps == 1) {
                piece_to_2_bits<0>(panel, out);
            }
        } else {
            for (; steps > 0; --steps, panel += 256, out += 256) {
                piece_to_2_bits<0>(panel, out);
            }
        }
    }
};

template <class C>
constexpr trit_lookup_kernel lookup_kernel() {
    using K = Table<C>;
    constexpr int kPanels = C::kRows / TRIT_PANEL_ROWS;
    return {C::kName,    C::kTier,    C::kPacking, supported,
            C::kTokens,  1,           kPanels,     sizeof(typename K::Work),
            K::multiply, K::to_2_bits};
}
