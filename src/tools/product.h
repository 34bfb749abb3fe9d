// SPDX-License-Identifier: MIT
/// One matrix product as the engine computes it, in every way that there is: what the measuring programs
/// time.
#ifndef TRIT_PRODUCT_H
#define TRIT_PRODUCT_H

#include <string>
#include <vector>

#include "matrix/activations.h"
#include "matrix/lookup_plan.h"
#include "tools/measure.h"
#include "trit.h"

namespace trit {

struct Matrix {
    int64_t n;
    int64_t k;

    /// "NxK"; a mistake ends the program.
    static Matrix named(const std::string& text);
};

/// How a product is computed.
struct Way {
    enum class Layout { kTwoBits, kFiveTrits, kInPlace, kLookup, kTables };

    std::string name;  ///< what it was called
    Layout layout = Layout::kTwoBits;
    LookupChoice few;   ///< of kTables: reads the indices
    LookupChoice many;  ///< reads panels of 2 bits, also those made of indices

    /// 2_bits, 5_trits, in_place: by the tier's own kernel alone. tl1, tl2, or the name of a kernel for them:
    /// as the engine does it. lookup (the kernel that the engine would use), or a look-up kernel's name, with
    /// "@20" for calls of 20 panels, with "@20:9" also for calls of 9 tokens and more: by it alone. Joined by
    /// a "+", as in tl2+lookup_avx2_t32_s2_r2560@20:9 or tl2+2_bits: so packed, many tokens as the second
    /// name says. A mistake ends the program.
    static Way named(const std::string& text);
};

/// What a product needs besides its operands.
struct Room {
    char* scratch;    ///< this thread's own, Product::scratch_bytes(...) bytes, aligned to 64
    uint8_t* shared;  ///< all threads', Product::shared_bytes(...) bytes, aligned to 64
    Barrier* barrier;
};

class Product {
 public:
    Product(const trit_tier& tier, const Way& way, const Matrix& matrix)
        : tier_(tier), way_(way), matrix_(matrix) {}

    /// Whether the tier and the matrix have what the way needs, for exactly these tokens if it is one kernel.
    bool possible(int m, int threads) const;
    /// Of the weights, as the way reads them.
    size_t bytes() const;
    size_t scratch_bytes(int m, int threads) const;
    size_t shared_bytes(int m, int threads) const;

    /// One thread's rows times m tokens.
    ///
    /// @param weights  bytes() bytes, aligned to 64
    /// @param out      float [m, n]
    void run(const uint8_t* weights, int thread, int threads, const Activations& act, int m, const Room& room,
             float* out) const;

 private:
    int64_t panels() const { return (matrix_.n + TRIT_PANEL_ROWS - 1) / TRIT_PANEL_ROWS; }
    size_t panel_bytes() const;
    size_t two_bits_bytes() const { return trit_panel_bytes(TRIT_PACKING_2_BITS, matrix_.k); }
    /// Few tokens of kTables: by their indices.
    bool looks_up(int m) const {
        return way_.layout == Way::Layout::kTables && m < PackedMatrix::kLeastUnpacked;
    }
    /// Many tokens of kTables: from panels of 2 bits, made of all rows first.
    bool unpacks(int m, int threads) const {
        return way_.layout == Way::Layout::kTables && !looks_up(m) && plan(m, threads).tokens() > 0;
    }
    LookupPlan plan(int m, int threads) const { return {way_.many, m, matrix_.n, threads}; }
    /// Few tokens by tables over inputs.
    void look_up(const uint8_t* weights, int thread, int threads, const Activations& act, int m,
                 char* scratch, float* out) const;
    void unpack(const uint8_t* weights, int thread, int threads, uint8_t* shared) const;
    /// Tokens from `first` on, by the tier's own kernels.
    void multiply(const uint8_t* weights, int thread, int threads, const Activations& act, int first, int m,
                  char* scratch, float* out) const;
    void multiply_panel(const uint8_t* weights, int64_t p, int rows, const int8_t* q, size_t q_row_bytes,
                        int m, int32_t* c) const;

    const trit_tier& tier_;
    Way way_;
    Matrix matrix_;
};

/// A product's inputs, the threads' scratch and its results.
class Operands {
 public:
    Operands(const trit_tier& tier, const Matrix& matrix, int m, int threads, size_t scratch_bytes,
             size_t shared_bytes);

    /// Seconds of `loops` products, one after the other: every thread waits for the last, as in the engine.
    /// Copy i of the weights follows copy i - 1; `copies` of them take turns, `step` bytes apart, from copy
    /// `first` on.
    double time(const Product& product, const Memory& weights, size_t step, size_t first, size_t copies,
                int loops);

 private:
    int m_;
    int threads_;
    int64_t k_;
    size_t scratch_step_;
    std::vector<char> act_memory_;
    std::vector<char> scratch_memory_;
    Memory shared_memory_;
    std::vector<float> out_;
};

/// Random codes 0..2 in every field: what look-up kernels read decides which lines of their tables they
/// touch.
void fill_with_codes(const Memory& weights);

}  // namespace trit

#endif  // TRIT_PRODUCT_H
