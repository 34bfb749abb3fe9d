// SPDX-License-Identifier: MIT
/// `plan_driver [FAULT]`: plans products as the engine does (src/ggml/mul_mat.cpp, of ggml's tensors) and as
/// `trit-tune` and `trit-bench` do (src/tools/product.cpp, of a way's name), and compares them: every packing
/// of the chosen tier and in place, with every look-up kernel for many tokens, on several numbers of threads,
/// with 1 to 600 tokens.
///
/// FAULT: "threads", "panels", "least", "packing", "table" or "at_once" (the tools' side differs in that), to
/// see that it is noticed.
///
/// `plan_driver work`: how even the threads' work is.
///
/// Exit code 0: all equal; 1: a difference; 2: usage.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "ggml/mul_mat.h"
#include "ggml/profile.h"
#include "ggml/repack.h"
#include "kernels/packing_names.h"
#include "matrix/tuning.h"
#include "tools/product.h"

// What mul_mat.cpp and repack.cpp need of the rest of the engine, and nothing here calls.
extern "C" {
bool trit_profiling = false;
void trit_profile_quantize(void) {}
void trit_profile_product(const struct ggml_tensor*) {}
void ggml_barrier(struct ggml_threadpool*) {}
}
ggml_backend_buffer_type_t trit_buffer_type(void) { return nullptr; }

namespace {

using trit::LookupChoice;
using trit::Matmul;

constexpr int kMostTokens = 600;
const trit::Matrix kShapes[] = {{2560, 2560}, {6912, 2560},   {2560, 6912}, {640, 2560},
                                {1000, 512},  {64, 14336},    {130, 128},   {256, 256},
                                {32, 1024},   {16384, 16384}, {192, 256},   {300, 102400}};
const int kThreads[] = {1, 2, 3, 8, 64};

std::string fault;
int64_t plans = 0;

std::string text_of(const LookupChoice& choice, bool with_least) {
    const std::string name = choice.kernel != nullptr ? choice.kernel->name : "none";
    return name + "@" + std::to_string(choice.panels) +
           (with_least ? ":" + std::to_string(choice.least_tokens) : "");
}

/// All that a plan decides.
std::string describe(const Matmul& product, const trit::Matrix& matrix, int threads) {
    std::string text = "storage " + std::to_string(static_cast<int>(product.method().storage)) +
                       ", packing " + trit::packing_name(product.method().packing) + ", few " +
                       text_of(product.method().few, false) + ", tokens " + std::to_string(product.block()) +
                       ", at once " + std::to_string(product.method().at_once) + ", in tables " +
                       std::to_string(product.tables().tokens()) + " by " +
                       std::to_string(product.tables().parts());
    if (product.tables().tokens() > 0) {
        text += ", " + text_of(product.method().many, true);
    }
    text += ", scratch " + std::to_string(product.scratch_bytes()) + ", shared " +
            std::to_string(product.shared_bytes()) + ", rows";
    trit::PackedMatrix::Header h{matrix.k, matrix.n, 0, product.method().packing, 0, 0, 0, 1.0f};
    text += product.must_unpack(trit::PackedMatrix(&h, nullptr)) ? ", unpacked first" : "";
    for (int thread = 0; thread < threads; ++thread) {
        int64_t first = 0;
        int64_t last = 0;
        product.share(thread, &first, &last);
        text += " " + std::to_string(first) + "-" + std::to_string(last);
    }
    return text;
}

/// "N K M THREADS" of standard input: the busiest thread's work over the mean, a line each. Panels, no
/// tables.
int say_work() {
    long long n = 0;
    long long k = 0;
    int m = 0;
    int threads = 0;
    while (std::scanf("%lld %lld %d %d", &n, &k, &m, &threads) == 4) {
        const Matmul product(*trit_tier_chosen(), {}, {k, n, 1}, m, threads);
        int64_t most = 0;
        int64_t all = 0;
        for (int thread = 0; thread < threads; ++thread) {
            most = std::max(most, product.work(thread, m));
            all += product.work(thread, m);
        }
        const int64_t rows = (n + TRIT_PANEL_ROWS - 1) / TRIT_PANEL_ROWS * TRIT_PANEL_ROWS;
        if (all != rows * k * m) {
            std::fprintf(stderr, "%lldx%lld, %d tokens, %d threads: work is missing\n", n, k, m, threads);
            return 1;
        }
        std::printf("%.6f\n", static_cast<double>(most) * threads / static_cast<double>(all));
    }
    return 0;
}

/// A weight as the loader has it, without its data.
ggml_tensor* weight(ggml_context* context, const trit::Matrix& matrix) {
    return ggml_new_tensor_2d(context, GGML_TYPE_I2_S, matrix.k, matrix.n);
}

void compare(const ggml_tensor* w, const trit::Matrix& matrix, bool packed, const trit::Way& way,
             int threads) {
    const trit::Product product(*trit_tier_chosen(), way, matrix);
    for (int m = 1; m <= kMostTokens; ++m, ++plans) {
        const std::string engine = describe(trit::matmul_of(w, packed, m, threads), matrix, threads);
        const std::string tools = describe(
            product.matmul(m, threads + (fault == "threads" && m == kMostTokens ? 1 : 0)), matrix, threads);
        if (engine != tools) {
            std::fprintf(stderr, "%lldx%lld, %d tokens, %d threads, way %s:\n  engine: %s\n  tools:  %s\n",
                         static_cast<long long>(matrix.n), static_cast<long long>(matrix.k), m, threads,
                         way.name.c_str(), engine.c_str(), tools.c_str());
            std::exit(1);
        }
    }
}

/// The name that trit/tune has for a packing and its kernel for many tokens.
std::string name_of(trit_packing packing, LookupChoice many) {
    std::string name = trit::packing_name(packing);
    if (packing >= TRIT_TIER_PACKINGS && fault == "table") {
        // Another call of the same kernel.
        const trit_lookup_kernel* kernel = trit_lookup_chosen(packing);
        name = std::string(kernel->name) + "@" + std::to_string(kernel->panels - 1);
    }
    if (packing == TRIT_PACKING_5_TRITS) {
        return name;
    }
    many.panels -= fault == "panels" ? 1 : 0;
    many.least_tokens += fault == "least" ? 1 : 0;
    return name + "+" + (many.kernel != nullptr ? text_of(many, true) : "2_bits");
}

std::vector<trit_packing> packings() {
    std::vector<trit_packing> found;
    for (int i = 0; i < TRIT_PACKING_COUNT; ++i) {
        const auto packing = static_cast<trit_packing>(i);
        if (trit::is_ternary(packing) && (i < TRIT_TIER_PACKINGS ? trit_tier_chosen()->panel[i] != nullptr
                                                                 : trit_lookup_chosen(packing) != nullptr)) {
            found.push_back(packing);
        }
    }
    return found;
}

/// None, and each kernel that runs here, as its file says and otherwise.
std::vector<LookupChoice> choices() {
    std::vector<LookupChoice> found{{}};
    for (int i = 0; i < trit_lookup_count(); ++i) {
        const trit_lookup_kernel* kernel = trit_lookup_at(i);
        if (kernel->packing == TRIT_PACKING_2_BITS && kernel->supported()) {
            found.push_back(LookupChoice::of(kernel));
            found.push_back({kernel, 2, 1});
            found.push_back({kernel, kernel->panels / 2, kernel->tokens / 2});
        }
    }
    return found;
}

/// Without tuning: the tools' short names.
void compare_defaults(ggml_context* context) {
    const trit_tier& tier = *trit_tier_chosen();
    for (const trit::Matrix& matrix : kShapes) {
        const ggml_tensor* w = weight(context, matrix);
        const trit_packing packing =
            trit::PackedMatrix::packing_for(tier, *trit::encoding_of(w->type), trit::shape_of(w));
        const bool has_lookup = trit_lookup_chosen(TRIT_PACKING_2_BITS) != nullptr;
        std::string name = trit::packing_name(packing);
        if (packing == TRIT_PACKING_2_BITS && has_lookup) {
            name += "+lookup";
        }
        for (const int threads : kThreads) {
            compare(w, matrix, true, trit::Way::named(name), threads);
        }
        if (matrix.k % TRIT_I2_S_BLOCK == 0) {
            compare(w, matrix, false, trit::Way::named("in_place"), 3);
        }
    }
}

void compare_tuned(ggml_context* context) {
    const std::vector<LookupChoice> all = choices();
    for (const trit_packing packing : packings()) {
        for (const LookupChoice& many : all) {
            const trit_packing named = fault == "packing" ? TRIT_PACKING_2_BITS : packing;
            trit::set_tokens_at_once(packing, packing == TRIT_PACKING_5_TRITS ? 16 : 12);
            const trit::Way way = trit::Way::named(name_of(named, many) + (fault == "at_once" ? "/8" : ""));
            for (const trit::Matrix& matrix : kShapes) {
                const ggml_tensor* w = weight(context, matrix);
                for (const int threads : kThreads) {
                    // Packed before anybody says how many threads there will be: the most count.
                    trit::add_tuning({{matrix.n, matrix.k, 4096, many, packing},
                                      {matrix.n, matrix.k, threads, many, packing}});
                    compare(w, matrix, true, way, threads);
                }
            }
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    fault = argc > 1 ? argv[1] : "";
    if (fault == "work") {
        return say_work();
    }
    ggml_context* context = ggml_init({size_t{64} << 20, nullptr, true});
    compare_defaults(context);
    compare_tuned(context);
    ggml_free(context);
    std::printf("%s: %lld plans, all equal\n", trit_tier_chosen()->name, static_cast<long long>(plans));
    return 0;
}
