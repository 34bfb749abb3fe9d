// SPDX-License-Identifier: MIT
/// `trit-tune`: times the ways of computing a product in turns, as often as it is told to. trit/tune
/// decides.
///
///     --tier chosen        a name
///     --milliseconds 2     of each measurement: short products are repeated in it
///     --megabytes 256      weights that a product of few tokens goes through before it meets the same again
///     --kernels FILE       shared library of further look-up kernels
///
/// The first line says what there is: a JSON object with "tier", "default" (a look-up kernel's name or
/// empty), "packings" that something here reads, and "kernels", look-up kernels for panels of 2 bits that run
/// here, with their "tokens", "panels" and "least_tokens". "tl1" and "tl2": kernels for such panels, the one
/// that is used without tuning first.
///
/// A line of standard input is an order, "N K M THREADS ROUNDS WAY [WAY...]"; the answer is one line: a JSON
/// object with "ways", those of them that are possible, and "seconds", of each round and way, rounds outside.
/// Every other round runs backwards, so that what the machine does besides meets all alike. "at_once PACKING
/// TOKENS" has no answer: from then on ways with such panels take so many tokens at once. Ends with its
/// input.
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <sstream>

#include "kernels/packing_names.h"
#include "matrix/tuning.h"
#include "tools/kernel_library.h"
#include "tools/measure.h"
#include "tools/product.h"

namespace {

/// As in trit-bench: so few tokens read weights that no cache holds.
constexpr int kMostColdTokens = 16;
constexpr size_t kMostBytes = size_t{3} << 30;

struct Order {
    trit::Matrix matrix;
    int m;
    int threads;
    int rounds;
    std::vector<trit::Way> ways;
};

Order parse(const std::string& line) {
    std::istringstream words(line);
    Order order{{0, 0}, 0, 0, 0, {}};
    std::string n;
    std::string k;
    words >> n >> k >> order.m >> order.threads >> order.rounds;
    if (!words || order.m < 1 || order.m > 1 << 16 || order.threads < 1 || order.threads > 4096 ||
        order.rounds < 1 || order.rounds > 100000) {
        trit::usage_error("\"" + line + "\": expected N K M THREADS ROUNDS WAY...");
    }
    order.matrix = trit::Matrix::named(n + "x" + k);
    for (std::string way; words >> way;) {
        order.ways.push_back(trit::Way::named(way));
        if (order.ways.back().group != 0) {
            trit::usage_error(way + ": expected a way without a group of inputs");
        }
    }
    return order;
}

/// One way of an order: its product, and how often it runs in one measurement.
struct Candidate {
    trit::Way way;
    trit::Product product;
    size_t step;
    size_t copies;
    size_t at = 0;
    int loops = 1;
};

class Tuner {
 public:
    Tuner(const trit_tier& tier, double seconds, const trit::Memory& weights)
        : tier_(tier), seconds_(seconds), weights_(weights) {}

    void obey(const Order& order) {
        std::vector<Candidate> candidates;
        size_t scratch = 0;
        size_t shared = 0;
        for (const trit::Way& way : order.ways) {
            const trit::Product product(tier_, way, order.matrix);
            const size_t step = trit::align_up(product.bytes());
            if (!product.possible(order.m, order.threads) || step > weights_.bytes()) {
                continue;
            }
            const size_t copies = order.m <= kMostColdTokens ? weights_.bytes() / step : 1;
            candidates.push_back({way, product, step, copies});
            scratch = std::max(scratch, product.scratch_bytes(order.m, order.threads));
            shared = std::max(shared, product.shared_bytes(order.m, order.threads));
        }
        trit::Operands operands(tier_, order.matrix, 0, order.m, order.threads, scratch, shared);
        std::vector<std::string> names;
        for (Candidate& candidate : candidates) {
            const double once = std::min(time(operands, candidate), time(operands, candidate));
            candidate.loops = static_cast<int>(std::clamp(seconds_ / once, 1.0, 1e5));
            names.push_back(candidate.way.name);
        }
        std::vector<double> seconds(static_cast<size_t>(order.rounds) * candidates.size());
        for (int round = 0; round < order.rounds; ++round) {
            for (size_t i = 0; i < candidates.size(); ++i) {
                const size_t which = round % 2 == 0 ? i : candidates.size() - 1 - i;
                seconds[static_cast<size_t>(round) * candidates.size() + which] =
                    time(operands, candidates[which]) / candidates[which].loops;
            }
        }
        trit::JsonLine().add("ways", names).add("seconds", seconds).print();
    }

 private:
    double time(trit::Operands& operands, Candidate& c) {
        const size_t start = c.at;
        c.at = (c.at + static_cast<size_t>(c.loops)) % c.copies;
        return operands.time(c.product, weights_, c.step, start, c.copies, c.loops);
    }

    const trit_tier& tier_;
    double seconds_;
    const trit::Memory& weights_;
};

bool works(const trit_lookup_kernel* kernel) {
    char message[256] = "";
    return kernel->supported() && trit_lookup_selftest(kernel, message, sizeof(message));
}

std::vector<std::string> table_kernels(trit_packing packing) {
    const trit_lookup_kernel* chosen = trit_lookup_chosen(packing);
    std::vector<std::string> names;
    if (chosen != nullptr) {
        names.emplace_back(chosen->name);
    }
    for (int i = 0; i < trit_lookup_count(); ++i) {
        const trit_lookup_kernel* kernel = trit_lookup_at(i);
        if (kernel != chosen && kernel->packing == packing && works(kernel)) {
            names.emplace_back(kernel->name);
        }
    }
    return names;
}

void set_at_once(const std::string& line) {
    std::istringstream words(line);
    std::string name;
    int tokens = -1;
    words >> name >> name >> tokens;
    for (const trit_packing packing : {TRIT_PACKING_2_BITS, TRIT_PACKING_5_TRITS}) {
        if (name == trit::packing_name(packing) && tokens >= 0) {
            trit::set_tokens_at_once(packing, tokens);
            return;
        }
    }
    trit::usage_error("\"" + line + "\": expected at_once 2_bits TOKENS or at_once 5_trits TOKENS");
}

void introduce(const trit_tier& tier) {
    std::vector<std::string> names;
    std::vector<double> tokens;
    std::vector<double> panels;
    std::vector<double> least;
    for (int i = 0; i < trit_lookup_count(); ++i) {
        const trit_lookup_kernel* kernel = trit_lookup_at(i);
        // Those of TL1 and TL2 need other panels: they are no choice for a matrix that is packed already.
        if (kernel->packing == TRIT_PACKING_2_BITS && works(kernel)) {
            names.emplace_back(kernel->name);
            tokens.push_back(kernel->tokens);
            panels.push_back(kernel->panels);
            least.push_back(kernel->least_tokens);
        }
    }
    const trit_lookup_kernel* chosen = trit_lookup_chosen(TRIT_PACKING_2_BITS);
    trit::JsonLine()
        .add("tier", tier.name)
        .add("packings", trit::packings_of(tier, TRIT_PACKING_COUNT))
        .add("default", chosen != nullptr ? chosen->name : "")
        .add("kernels", names)
        .add("tokens", tokens)
        .add("panels", panels)
        .add("least_tokens", least)
        .add("tl1", table_kernels(TRIT_PACKING_TL1))
        .add("tl2", table_kernels(TRIT_PACKING_TL2))
        .print();
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    const trit::Flags flags(
        argc, argv,
        {{"--tier", "chosen"}, {"--milliseconds", "2"}, {"--megabytes", "256"}, {"--kernels", ""}});
    const std::vector<const trit_tier*> tiers = flags.tiers();
    if (tiers.size() != 1) {
        trit::usage_error("--tier " + flags.text("--tier") + ": expected one tier");
    }
    if (!flags.text("--kernels").empty()) {
        trit::add_kernels(flags.text("--kernels"));
    }
    const size_t bytes = static_cast<size_t>(flags.number("--megabytes", 1)) << 20;
    const trit::Memory weights(std::min(bytes, kMostBytes), true);
    trit::fill_with_codes(weights);
    introduce(*tiers[0]);
    Tuner tuner(*tiers[0], flags.number("--milliseconds", 1e-3) / 1e3, weights);
    for (std::string line; std::getline(std::cin, line);) {
        if (line.rfind("at_once ", 0) == 0) {
            set_at_once(line);
            continue;
        }
        tuner.obey(parse(line));
        std::fflush(stdout);
    }
    return 0;
}
