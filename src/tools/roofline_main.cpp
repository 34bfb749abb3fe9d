// SPDX-License-Identifier: MIT
/// `trit-roofline`: what this machine can do at most, for each tier and number of threads: int8
/// multiply-accumulates in registers, and reading memory. One JSON object a line; trit/engine/roofline makes
/// a table of them.
///
///     --tier all          a name, "chosen" or "all"
///     --threads 1,2       numbers of threads
///     --seconds 0.5       for each of the two limits
///     --megabytes 256     memory that is read, once on huge and once on plain pages; take 4 times the caches
#include <algorithm>
#include <chrono>

#include "tools/measure.h"

namespace {

constexpr int kLeastRepetitions = 5;
/// A run of the multiply-accumulate loop; many of them, so that some escape the neighbours.
constexpr double kMacSeconds = 5e-3;

void measure(const trit_tier& tier, int threads, double seconds, const trit::Memory& huge,
             const trit::Memory& plain) {
    const trit::MacLimit macs(tier, threads, std::min(kMacSeconds, seconds / kLeastRepetitions));
    trit::ReadLimit reads(tier, threads);
    const std::vector<trit::ReadPattern> patterns = trit::read_patterns({&huge, &plain});
    std::vector<double> mac_samples;
    std::vector<std::vector<double>> read_samples(patterns.size());
    const auto start = std::chrono::steady_clock::now();
    const auto spent = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    // In turns, so that a slow moment of the machine meets all of them.
    for (int i = 0; i < kLeastRepetitions || spent() < 2 * seconds; ++i) {
        const double until = spent() + seconds / kLeastRepetitions;
        do {
            mac_samples.push_back(macs.measure());
        } while (spent() < std::min(until, 2 * seconds));
        for (size_t p = 0; p < patterns.size(); ++p) {
            read_samples[p].push_back(reads.measure(patterns[p], 0));
        }
    }
    trit::JsonLine()
        .add("kind", "int8")
        .add("tier", tier.name)
        .add("threads", threads)
        .add("gmacs", mac_samples)
        .print();
    for (size_t p = 0; p < patterns.size(); ++p) {
        trit::JsonLine()
            .add("kind", "read")
            .add("tier", tier.name)
            .add("threads", threads)
            .add("pages", patterns[p].memory->huge() ? "huge" : "plain")
            .add("ahead", static_cast<double>(patterns[p].ahead))
            .add("gbs", read_samples[p])
            .print();
    }
}

}  // namespace

int main(int argc, char** argv) {
    const trit::Flags flags(
        argc, argv, {{"--tier", "all"}, {"--threads", "1"}, {"--seconds", "0.5"}, {"--megabytes", "256"}});
    const std::vector<const trit_tier*> tiers = flags.tiers();
    const std::vector<int> threads = flags.numbers("--threads");
    const double seconds = flags.number("--seconds", 1e-3);
    const size_t bytes = static_cast<size_t>(flags.number("--megabytes", 1)) << 20;
    const trit::Memory huge(bytes, true);
    const trit::Memory plain(bytes, false);
    trit::JsonLine()
        .add("kind", "head")
        .add("compiler", trit::compiler_name())
        .add("megabytes", static_cast<double>(bytes >> 20))
        .print();
    for (const trit_tier* tier : tiers) {
        trit::JsonLine()
            .add("kind", "tier")
            .add("tier", tier->name)
            .add("features", tier->features)
            .add("packings", trit::packings_of(*tier, TRIT_TIER_PACKINGS))
            .print();
        for (const int count : threads) {
            measure(*tier, count, seconds, huge, plain);
        }
    }
    return 0;
}
