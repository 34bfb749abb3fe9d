// SPDX-License-Identifier: MIT
/// Operands for a matrix product, and the ways of computing it by name: what the measuring programs time. The
/// product itself is the engine's (matrix/matmul.h).
#ifndef TRIT_PRODUCT_H
#define TRIT_PRODUCT_H

#include <string>
#include <vector>

#include "matrix/activations.h"
#include "matrix/matmul.h"
#include "tools/measure.h"
#include "trit.h"

namespace trit {

struct Matrix {
    int64_t n;
    int64_t k;

    /// "NxK"; a mistake ends the program.
    static Matrix named(const std::string& text);
};

/// How a product is computed, and whether a look-up kernel must take all of its tokens.
struct Way {
    std::string name;  ///< what it was called
    Method method;
    int64_t group = 0;         ///< inputs that share a scale; 0: all, of the whole matrix
    bool only_tables = false;  ///< a rest that the tier's own kernel would take is no measure of the kernel

    /// 2_bits, 5_trits, 1_bit, in_place: by the tier's own kernel alone; 2_bits/16: 16 tokens at once;
    /// 2_bits:128: a scale for each 128 inputs of a row, behind "/16" if both are. tl1, tl2, or the name of a
    /// kernel for them: as the engine does it. lookup (the kernel that the engine would use), or a look-up
    /// kernel's name, with
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
    Product(const trit_tier& tier, const Way& way, const Matrix& matrix);

    /// The engine's plan of such a product.
    Matmul matmul(int m, int threads) const {
        return {tier_, way_.method, {matrix_.k, matrix_.n, 1}, m, threads};
    }
    /// Whether the tier and the matrix have what the way needs, for exactly these tokens if it is one kernel.
    bool possible(int m, int threads) const;
    /// Of the weights, as the way reads them.
    size_t bytes() const;
    size_t scratch_bytes(int m, int threads) const { return matmul(m, threads).scratch_bytes(); }
    size_t shared_bytes(int m, int threads) const { return matmul(m, threads).shared_bytes(); }

    /// One thread's rows times m tokens.
    ///
    /// @param weights  bytes() bytes, aligned to 64
    /// @param out      float [m, n]
    void run(const uint8_t* weights, int thread, int threads, const Activations& act, int m, const Room& room,
             float* out) const;

 private:
    const trit_tier& tier_;
    Way way_;
    Matrix matrix_;
    PackedMatrix::Header header_;  ///< of panels
};

/// A product's inputs, the threads' scratch and its results.
class Operands {
 public:
    Operands(const trit_tier& tier, const Matrix& matrix, int64_t group, int m, int threads,
             size_t scratch_bytes, size_t shared_bytes);

    /// Seconds of `loops` products, one after the other: every thread waits for the last, as in the engine.
    /// Copy i of the weights follows copy i - 1; `copies` of them take turns, `step` bytes apart, from copy
    /// `first` on.
    double time(const Product& product, const Memory& weights, size_t step, size_t first, size_t copies,
                int loops);

 private:
    int m_;
    int threads_;
    int64_t k_;
    int64_t group_;
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
