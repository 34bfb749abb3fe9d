// SPDX-License-Identifier: MIT
/// `trit-describe`: what the engine would do with matrices here, with this environment and this machine's
/// tuning: so that nobody has to decide it again. One JSON object a line.
///
///     --matrices i2_s:2560x2560   encodings and n x k, several with commas
///     --threads 1                 numbers of threads
///     --m 1,512                   tokens
///
/// The first line says what there is: "tier", "packings" that something here reads, "panel_rows", and
/// "cores", which CPU this is. Then a line of kind "matrix" for each: its "packing" (empty: it stays as it is
/// in the file), and the "bytes" of its panels, with one scale for all weights, and ("grouped_bytes") with
/// scales of their own, 0 where the encoding has none. Behind it, lines of kind "product" for each number of
/// threads and tokens: "few" and "few_panels", the look-up kernel for few tokens and its panels in a call;
/// "many", "many_panels" and "least_tokens", the one for many; how many tokens go through its tables
/// ("in_tables"); "block", how many others are computed at once; and what it needs of memory.
#include <cstdio>
#include <string>
#include <vector>

#include "kernels/cpu_identity.h"
#include "kernels/packing_names.h"
#include "matrix/encodings.h"
#include "matrix/matmul.h"
#include "matrix/packed_matrix.h"
#include "matrix/tuning_file.h"
#include "tools/measure.h"

namespace {

using trit::PackedMatrix;

struct Order {
    const trit::Encoding* encoding;
    trit::Shape shape;
};

Order parse(const std::string& text) {
    const size_t colon = text.find(':');
    const trit::Encoding* encoding = trit::find_encoding(text.substr(0, colon).c_str());
    long long n = 0;
    long long k = 0;
    char rest = 0;
    if (colon == std::string::npos || encoding == nullptr ||
        std::sscanf(text.c_str() + colon, ":%lldx%lld%c", &n, &k, &rest) != 2 || n < 1 || k < 1) {
        trit::usage_error("--matrices " + text + ": expected ENCODING:NxK, such as i2_s:2560x2560");
    }
    return {encoding, {k, n, 1}};
}

std::string name_of(const trit_lookup_kernel* kernel) { return kernel != nullptr ? kernel->name : ""; }

void introduce(const trit_tier& tier) {
    std::vector<std::string> cores;
    for (const trit::CpuCore& core : trit::cpu_cores()) {
        std::string text;
        for (const auto& [name, value] : core) {
            text += (text.empty() ? "" : ",") + name + "=" + value;
        }
        cores.push_back(text);
    }
    trit::JsonLine()
        .add("kind", "head")
        .add("tier", tier.name)
        .add("packings", trit::packings_of(tier, TRIT_PACKING_COUNT))
        .count("panel_rows", TRIT_PANEL_ROWS)
        .add("cores", cores)
        .print();
}

void describe(const trit_tier& tier, const Order& order) {
    const trit::Shape& shape = order.shape;
    const bool packed = PackedMatrix::possible(tier, *order.encoding, shape);
    const trit_packing packing = PackedMatrix::packing_for(tier, *order.encoding, shape);
    const int64_t panels = (shape.n + TRIT_PANEL_ROWS - 1) / TRIT_PANEL_ROWS;
    const int64_t group = order.encoding->group();
    const auto bytes = [&](trit_packing as, int64_t of) {
        return packed ? panels * static_cast<int64_t>(PackedMatrix::panel_bytes(as, shape.k, of)) : 0;
    };
    trit::JsonLine()
        .add("kind", "matrix")
        .add("encoding", order.encoding->name)
        .count("n", shape.n)
        .count("k", shape.k)
        .add("packing", packed ? trit::packing_name(packing) : "")
        .count("bytes", bytes(packing, 0))
        .count("grouped_bytes",
               group != 0 ? bytes(PackedMatrix::packing_for(tier, *order.encoding, group), group) : 0)
        .print();
}

void describe(const trit_tier& tier, const Order& order, int threads, int m) {
    const trit::Shape& shape = order.shape;
    if (!PackedMatrix::possible(tier, *order.encoding, shape)) {
        return;
    }
    const trit::Method method =
        trit::Method::chosen(tier, *order.encoding, shape, trit::Storage::kPanels, threads);
    const trit::Matmul product(tier, method, shape, m, threads);
    trit::JsonLine()
        .add("kind", "product")
        .add("encoding", order.encoding->name)
        .count("n", shape.n)
        .count("k", shape.k)
        .count("threads", threads)
        .count("m", m)
        .add("few", name_of(method.few.kernel))
        .count("few_panels", method.few.panels)
        .add("many", name_of(method.many.kernel))
        .count("many_panels", method.many.panels)
        .count("least_tokens", method.many.least_tokens)
        .count("in_tables", product.tables().tokens())
        .count("block", product.block())
        .count("scratch_bytes", static_cast<int64_t>(product.scratch_bytes()))
        .count("shared_bytes", static_cast<int64_t>(product.shared_bytes()))
        .print();
}

}  // namespace

int main(int argc, char** argv) {
    const trit::Flags flags(argc, argv,
                            {{"--matrices", "i2_s:2560x2560"}, {"--threads", "1"}, {"--m", "1,512"}});
    std::vector<Order> orders;
    for (const std::string& text : flags.words("--matrices")) {
        orders.push_back(parse(text));
    }
    const std::vector<int> threads = flags.numbers("--threads");
    const std::vector<int> tokens = flags.numbers("--m");
    trit::load_tuning();
    const trit_tier& tier = *trit_tier_chosen();
    introduce(tier);
    for (const Order& order : orders) {
        describe(tier, order);
        for (const int count : threads) {
            for (const int m : tokens) {
                describe(tier, order, count, m);
            }
        }
    }
    return 0;
}
