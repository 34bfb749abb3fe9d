// SPDX-License-Identifier: MIT
/// `trit-bench`: how long whole matrix products take, beside the machine's two limits measured in turns with
/// them. One JSON object a line; trit/measure/committed/kernels.py makes a table of them.
///
///     --tier chosen            a name, "chosen" or "all"
///     --threads 1,2            numbers of threads
///     --shapes 6912x2560       n x k, several with commas
///     --packings 2_bits,5_trits,tl1,tl2,in_place,lookup   what the tier lacks or k or m does not allow is
///     left
///                              out; tl1, tl2, lookup (2_bits by tables over tokens): by the look-up kernel
///                              that TRIT_LOOKUP names, or the tier's; or look-up kernels' names
///     --m 1,2,4,8,16,64,512    tokens
///     --repetitions 5
///     --milliseconds 4         of each measurement: short products are repeated in it
///     --megabytes 256          weights that a product of few tokens goes through before it meets the same
///     again;
///                              take 4 times the caches
///     --limit-seconds 2        products that take longer are left out, and named
#include <algorithm>
#include <cstdio>

#include "tools/measure.h"
#include "tools/product.h"

namespace {

using trit::Matrix;
using trit::Memory;
using trit::Operands;
using trit::Product;
using trit::Way;

/// Up to this many tokens a product reads weights that no cache holds, as generating text does. With more,
/// the weights' part of the time is small.
constexpr int kMostColdTokens = 16;
constexpr size_t kMostBytes = size_t{3} << 30;
constexpr int kReadPatternTries = 3;

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

    void measure(const Matrix& matrix, const Way& way, int m) {
        const Product product(tier_, way, matrix);
        if (!product.possible(m, threads_)) {
            return;
        }
        Operands operands(tier_, matrix, way.group, m, threads_, product.scratch_bytes(m, threads_),
                          product.shared_bytes(m, threads_));
        const bool cold = m <= kMostColdTokens;
        const size_t step = (product.bytes() + TRIT_PANEL_ALIGN - 1) / TRIT_PANEL_ALIGN * TRIT_PANEL_ALIGN;
        if (step > weights_.bytes()) {
            std::fprintf(stderr, "%lldx%lld %s: left out, it is larger than --megabytes\n",
                         static_cast<long long>(matrix.n), static_cast<long long>(matrix.k),
                         way.name.c_str());
            return;
        }
        copies_ = cold ? weights_.bytes() / step : 1;
        const double once = best_of_two(operands, product, step);
        if (once > limit_seconds_) {
            std::fprintf(stderr, "%s %lldx%lld %s, m = %d, %d threads: left out, one product takes %.1f s\n",
                         tier_.name, static_cast<long long>(matrix.n), static_cast<long long>(matrix.k),
                         way.name.c_str(), m, threads_, once);
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
                seconds.push_back(time(operands, product, step, loops) / loops);
            }
        }
        trit::JsonLine()
            .add("kind", "product")
            .add("tier", tier_.name)
            .add("packing", way.name)
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
    double best_of_two(Operands& operands, const Product& product, size_t step) {
        at_ = 0;
        const double first = time(operands, product, step, 1);
        return first > limit_seconds_ ? first : std::min(first, time(operands, product, step, 1));
    }

    double time(Operands& operands, const Product& product, size_t step, int loops) {
        const size_t start = at_;
        at_ = (at_ + static_cast<size_t>(loops)) % copies_;
        return operands.time(product, weights_, step, start, copies_, loops);
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
};

}  // namespace

int main(int argc, char** argv) {
    const trit::Flags flags(argc, argv,
                            {{"--tier", "chosen"},
                             {"--threads", "1"},
                             {"--shapes", "2560x2560"},
                             {"--packings", "2_bits,5_trits,tl1,tl2,in_place,lookup"},
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
        matrices.push_back(Matrix::named(shape));
    }
    std::vector<Way> ways;
    for (const std::string& packing : flags.words("--packings")) {
        ways.push_back(Way::named(packing));
    }
    const Memory weights(std::min(bytes, kMostBytes), true);
    trit::fill_with_codes(weights);
    trit::JsonLine()
        .add("kind", "head")
        .add("compiler", trit::compiler_name())
        .add("megabytes", static_cast<double>(weights.bytes() >> 20))
        .print();
    for (const trit_tier* tier : tiers) {
        for (const int count : threads) {
            Bench bench(*tier, count, seconds, repetitions, limit_seconds, weights);
            for (const Matrix& matrix : matrices) {
                for (const Way& way : ways) {
                    for (const int m : tokens) {
                        bench.measure(matrix, way, m);
                    }
                }
            }
        }
    }
    return 0;
}
