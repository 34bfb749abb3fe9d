// SPDX-License-Identifier: MIT
/// `trit-bench`: how long whole matrix products take, beside the machine's two limits measured in turns with
/// them. One JSON object a line; benchmarks/kernels.py makes a table of them.
///
///     --tier chosen            a name, "chosen" or "all"
///     --threads 1,2            numbers of threads
///     --shapes 6912x2560       n x k, several with commas
///     --packings 2_bits,5_trits,in_place,lookup   what the tier lacks or k or m does not allow is left out;
///                              lookup: 2_bits by the look-up kernel that TRIT_LOOKUP names, or the tier's
///     --m 1,2,4,8,16,64,512    tokens
///     --repetitions 5
///     --milliseconds 4         of each measurement: short products are repeated in it
///     --megabytes 256          weights that a product of few tokens goes through before it meets the same
///     again;
///                              take 4 times the caches
///     --limit-seconds 2        products that take longer are left out, and named
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>

#include "activations.h"
#include "lookup.h"
#include "measure.h"

namespace {

using trit::Barrier;
using trit::Memory;

/// Up to this many tokens a product reads weights that no cache holds, as generating text does. With more,
/// the weights' part of the time is small.
constexpr int kMostColdTokens = 16;
constexpr size_t kMostBytes = size_t{3} << 30;
constexpr int kReadPatternTries = 3;

/// The engine's blocks of tokens (ggml_mul_mat.cpp): the activations of one stay in the second-level cache.
constexpr int64_t kTokenBlockBytes = 1024 * 1024;
constexpr int64_t kMostBlockTokens = 240;

int token_block(int64_t k, int m) {
    const int64_t fit = std::clamp<int64_t>(kTokenBlockBytes / k / 12 * 12, 12, kMostBlockTokens);
    return static_cast<int>(std::min<int64_t>(fit, m));
}

enum class Layout { kTwoBits, kFiveTrits, kInPlace, kLookup };

const char* name_of(Layout layout) {
    return layout == Layout::kInPlace  ? "in_place"
           : layout == Layout::kLookup ? "lookup"
                                       : trit::packing_name(static_cast<trit_packing>(layout));
}

Layout layout_named(const std::string& name) {
    for (const Layout layout : {Layout::kTwoBits, Layout::kFiveTrits, Layout::kInPlace, Layout::kLookup}) {
        if (name == name_of(layout)) {
            return layout;
        }
    }
    trit::usage_error("--packings " + name + ": there are 2_bits, 5_trits, in_place and lookup");
}

struct Matrix {
    int64_t n;
    int64_t k;
};

Matrix matrix_named(const std::string& text) {
    long long n = 0;
    long long k = 0;
    char rest = 0;
    if (std::sscanf(text.c_str(), "%lldx%lld%c", &n, &k, &rest) != 2 || n < 1 || n > 1 << 20 || k < 32 ||
        k % 32 != 0 || k > TRIT_PANEL_MAX_K) {
        trit::usage_error("--shapes " + text + ": expected NxK, K a multiple of 32 and at most " +
                          std::to_string(TRIT_PANEL_MAX_K));
    }
    return {n, k};
}

/// One matrix in one layout, and how its rows are shared out: as the engine does it.
class Product {
 public:
    Product(const trit_tier& tier, Layout layout, const Matrix& matrix)
        : tier_(tier), layout_(layout), matrix_(matrix) {}

    bool possible(int m, int threads) const {
        if (layout_ == Layout::kInPlace) {
            return matrix_.k % TRIT_I2_S_BLOCK == 0;
        }
        // A rest that the tier's own kernel would take is no measure of the look-up kernel.
        return layout_ == Layout::kLookup ? plan(m, threads).tokens() == m
                                          : tier_.panel[static_cast<int>(layout_)] != nullptr;
    }
    /// Of the results between a kernel and `finish`, and of what it needs besides, for each thread.
    size_t scratch_bytes(int m, int threads) const {
        const auto block = static_cast<size_t>(token_block(matrix_.k, m));
        return std::max(block * TRIT_PANEL_ROWS * sizeof(int32_t), plan(m, threads).scratch_bytes());
    }
    size_t bytes() const {
        return layout_ == Layout::kInPlace ? static_cast<size_t>(matrix_.n * matrix_.k / 4)
                                           : static_cast<size_t>(panels()) * panel_bytes();
    }

    /// One thread's rows times m tokens.
    ///
    /// @param scratch  scratch_bytes(m, threads) bytes, aligned to 64, this thread's own
    /// @param out      float [m, n]
    void run(const uint8_t* weights, int thread, int threads, const trit::Activations& act, int m,
             char* scratch, float* out) const {
        if (layout_ == Layout::kLookup) {
            const trit::Panels panels{matrix_.k, matrix_.n, weights, panel_bytes(), kScale};
            plan(m, threads).run(tier_, panels, act, 0, thread, threads, scratch, [&](int64_t j) {
                return out + j * matrix_.n;
            });
            return;
        }
        auto* c = reinterpret_cast<int32_t*>(scratch);
        const int64_t first = panels() * thread / threads;
        const int64_t last = panels() * (thread + 1) / threads;
        const int block = token_block(matrix_.k, m);
        for (int t = 0; t < m; t += block) {
            const int count = std::min(block, m - t);
            for (int64_t p = first; p < last; ++p) {
                const int64_t row = p * TRIT_PANEL_ROWS;
                const int rows = static_cast<int>(std::min<int64_t>(TRIT_PANEL_ROWS, matrix_.n - row));
                multiply(weights, p, rows, act.q(t), act.row_bytes(), count, c);
                for (int j = 0; j < count; ++j) {
                    tier_.finish(rows, c + j * TRIT_PANEL_ROWS, *act.sum(t + j), *act.scale(t + j), &kScale,
                                 0, out + (t + j) * matrix_.n + row);
                }
            }
        }
    }

 private:
    static constexpr float kScale = 1.0f;

    int64_t panels() const { return (matrix_.n + TRIT_PANEL_ROWS - 1) / TRIT_PANEL_ROWS; }
    size_t panel_bytes() const {
        const bool two_bits = layout_ == Layout::kTwoBits || layout_ == Layout::kLookup;
        return trit_panel_bytes(two_bits ? TRIT_PACKING_2_BITS : TRIT_PACKING_5_TRITS, matrix_.k);
    }
    trit::LookupPlan plan(int m, int threads) const {
        return {layout_ == Layout::kLookup ? trit_lookup_chosen() : nullptr, m, matrix_.n, threads};
    }

    void multiply(const uint8_t* weights, int64_t p, int rows, const int8_t* q, size_t q_row_bytes, int m,
                  int32_t* c) const {
        if (layout_ == Layout::kInPlace) {
            const auto row_bytes = static_cast<size_t>(matrix_.k / 4);
            tier_.i2_s(matrix_.k, weights + static_cast<size_t>(p) * TRIT_PANEL_ROWS * row_bytes, row_bytes,
                       rows, q, q_row_bytes, m, c, TRIT_PANEL_ROWS);
        } else {
            tier_.panel[static_cast<int>(layout_)](
                matrix_.k, weights + static_cast<size_t>(p) * panel_bytes(), q, q_row_bytes, m, c);
        }
    }

    const trit_tier& tier_;
    Layout layout_;
    Matrix matrix_;
};

/// Random codes 0..2 in every field: what look-up kernels read decides which lines of their tables they
/// touch.
void fill_with_codes(const Memory& weights) {
    std::vector<uint8_t> piece(std::min(size_t{1} << 20, weights.bytes()));
    std::minstd_rand random(1);
    for (uint8_t& byte : piece) {
        const auto value = static_cast<unsigned>(random() % 81);
        byte = static_cast<uint8_t>(value % 3 | value / 3 % 3 << 2 | value / 9 % 3 << 4 | value / 27 << 6);
    }
    for (size_t at = 0; at < weights.bytes(); at += piece.size()) {
        std::memcpy(weights.data() + at, piece.data(), std::min(piece.size(), weights.bytes() - at));
    }
}

/// One tier on one number of threads: its limits, and the products measured in turns with them.
class Bench {
 public:
    Bench(const trit_tier& tier, int threads, double seconds, int repetitions, double limit_seconds,
          const Memory& weights)
        : tier_(tier),
          threads_(threads),
          seconds_(seconds),
          repetitions_(repetitions),
          limit_seconds_(limit_seconds),
          weights_(weights),
          macs_(tier, threads, seconds),
          reads_(tier, threads) {
        // The pattern that is fastest here; it is measured again beside every product.
        double best = 0.0;
        for (const trit::ReadPattern& pattern : trit::read_patterns({&weights})) {
            for (int i = 0; i < kReadPatternTries; ++i) {
                const double gbs = reads_.measure(pattern, 0);
                if (gbs > best) {
                    best = gbs;
                    pattern_ = pattern;
                }
            }
        }
        read_bytes_ = static_cast<size_t>(best * 1e9 * seconds);
    }

    void measure(const Matrix& matrix, Layout layout, int m) {
        const Product product(tier_, layout, matrix);
        if (!product.possible(m, threads_)) {
            return;
        }
        prepare(matrix, m, product.scratch_bytes(m, threads_));
        const bool cold = m <= kMostColdTokens;
        const size_t step = (product.bytes() + TRIT_PANEL_ALIGN - 1) / TRIT_PANEL_ALIGN * TRIT_PANEL_ALIGN;
        if (step > weights_.bytes()) {
            std::fprintf(stderr, "%lldx%lld %s: left out, it is larger than --megabytes\n",
                         static_cast<long long>(matrix.n), static_cast<long long>(matrix.k), name_of(layout));
            return;
        }
        copies_ = cold ? weights_.bytes() / step : 1;
        const double once = best_of_two(product, step, m);
        if (once > limit_seconds_) {
            std::fprintf(stderr, "%s %lldx%lld %s, m = %d, %d threads: left out, one product takes %.1f s\n",
                         tier_.name, static_cast<long long>(matrix.n), static_cast<long long>(matrix.k),
                         name_of(layout), m, threads_, once);
            return;
        }
        const int loops = static_cast<int>(std::clamp(seconds_ / once, 1.0, 1e5));
        std::vector<double> seconds;
        std::vector<double> gmacs;
        std::vector<double> gbs;
        // A limit on either side of each product: what else the machine does drifts within seconds.
        for (int i = 0; i <= repetitions_; ++i) {
            gmacs.push_back(macs_.measure());
            gbs.push_back(reads_.measure(pattern_, read_bytes_));
            if (i < repetitions_) {
                seconds.push_back(time(product, step, m, loops) / loops);
            }
        }
        trit::JsonLine()
            .add("kind", "product")
            .add("tier", tier_.name)
            .add("packing", name_of(layout))
            .add("n", static_cast<double>(matrix.n))
            .add("k", static_cast<double>(matrix.k))
            .add("m", m)
            .add("threads", threads_)
            .add("weight_bytes", static_cast<double>(product.bytes()))
            .add("copies", static_cast<double>(copies_))
            .add("loops", loops)
            .add("seconds", seconds)
            .add("int8_gmacs", gmacs)
            .add("read_gbs", gbs)
            .print();
    }

 private:
    void prepare(const Matrix& matrix, int m, size_t scratch_bytes) {
        act_memory_.assign(trit::Activations::bytes(m, matrix.k, 0), 0);
        const trit::Activations act(act_memory_.data(), m, matrix.k, 0);
        std::vector<float> x(static_cast<size_t>(matrix.k));
        for (int j = 0; j < m; ++j) {
            for (size_t i = 0; i < x.size(); ++i) {
                x[i] = static_cast<float>((i + static_cast<size_t>(j)) * 37 % 255) - 127.0f;
            }
            act.quantize(tier_, x.data(), j);
        }
        k_ = matrix.k;
        out_.assign(static_cast<size_t>(m * matrix.n), 0.0f);
        // Two cache lines between the threads' parts.
        scratch_step_ = trit::align_up(scratch_bytes) + 2 * trit::kCacheLine;
        scratch_memory_.assign(scratch_step_ * static_cast<size_t>(threads_) + trit::kCacheLine, 0);
    }

    /// Seconds of `loops` products, one after the other: every thread waits for the last, as in the engine.
    double time(const Product& product, size_t step, int m, int loops) {
        Barrier barrier(threads_);
        const trit::Activations act(act_memory_.data(), m, k_, 0);
        auto* scratch =
            reinterpret_cast<char*>(trit::align_up(reinterpret_cast<size_t>(scratch_memory_.data())));
        const size_t start = at_;
        at_ = (at_ + static_cast<size_t>(loops)) % copies_;
        return trit::together(threads_, [&](int thread) {
            for (int i = 0; i < loops; ++i) {
                product.run(weights_.data() + (start + static_cast<size_t>(i)) % copies_ * step, thread,
                            threads_, act, m, scratch + scratch_step_ * static_cast<size_t>(thread),
                            out_.data());
                barrier.wait();
            }
        });
    }

    double best_of_two(const Product& product, size_t step, int m) {
        at_ = 0;
        const double first = time(product, step, m, 1);
        return first > limit_seconds_ ? first : std::min(first, time(product, step, m, 1));
    }

    const trit_tier& tier_;
    int threads_;
    double seconds_;
    int repetitions_;
    double limit_seconds_;
    const Memory& weights_;
    trit::MacLimit macs_;
    trit::ReadLimit reads_;
    trit::ReadPattern pattern_{nullptr, 0};
    size_t read_bytes_ = 0;
    size_t copies_ = 1;
    size_t at_ = 0;
    size_t scratch_step_ = 0;
    int64_t k_ = 0;
    std::vector<char> act_memory_;
    std::vector<char> scratch_memory_;
    std::vector<float> out_;
};

}  // namespace

int main(int argc, char** argv) {
    const trit::Flags flags(argc, argv,
                            {{"--tier", "chosen"},
                             {"--threads", "1"},
                             {"--shapes", "2560x2560"},
                             {"--packings", "2_bits,5_trits,in_place,lookup"},
                             {"--m", "1,2,4,8,16,64,512"},
                             {"--repetitions", "5"},
                             {"--milliseconds", "4"},
                             {"--megabytes", "256"},
                             {"--limit-seconds", "2"}});
    const std::vector<const trit_tier*> tiers = flags.tiers();
    const std::vector<int> threads = flags.numbers("--threads");
    const std::vector<int> tokens = flags.numbers("--m");
    const int repetitions = static_cast<int>(flags.number("--repetitions", 1));
    const double seconds = flags.number("--milliseconds", 1e-3) / 1e3;
    const double limit_seconds = flags.number("--limit-seconds", 0);
    const size_t bytes = static_cast<size_t>(flags.number("--megabytes", 1)) << 20;
    std::vector<Matrix> matrices;
    for (const std::string& shape : flags.words("--shapes")) {
        matrices.push_back(matrix_named(shape));
    }
    std::vector<Layout> layouts;
    for (const std::string& packing : flags.words("--packings")) {
        layouts.push_back(layout_named(packing));
    }
    const Memory weights(std::min(bytes, kMostBytes), true);
    fill_with_codes(weights);
    trit::JsonLine()
        .add("kind", "head")
        .add("compiler", trit::compiler_name())
        .add("megabytes", static_cast<double>(weights.bytes() >> 20))
        .print();
    for (const trit_tier* tier : tiers) {
        for (const int count : threads) {
            Bench bench(*tier, count, seconds, repetitions, limit_seconds, weights);
            for (const Matrix& matrix : matrices) {
                for (const Layout layout : layouts) {
                    for (const int m : tokens) {
                        bench.measure(matrix, layout, m);
                    }
                }
            }
        }
    }
    return 0;
}
