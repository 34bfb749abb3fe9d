// SPDX-License-Identifier: MIT
#include "tools/product.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <random>

namespace trit {
namespace {

/// The engine's blocks of tokens (ggml/mul_mat.cpp): the activations of one stay in the second-level cache.
constexpr int64_t kTokenBlockBytes = 1024 * 1024;
constexpr int64_t kMostBlockTokens = 240;
constexpr float kScale = 1.0f;

int token_block(int64_t k, int m) {
    const int64_t fit = std::clamp<int64_t>(kTokenBlockBytes / k / 12 * 12, 12, kMostBlockTokens);
    return static_cast<int>(std::min<int64_t>(fit, m));
}

const trit_lookup_kernel* lookup_named(const std::string& name) {
    const trit_lookup_kernel* kernel = trit_lookup_by_name(name.c_str());
    char message[256] = "";
    if (kernel == nullptr) {
        return nullptr;
    }
    if (!kernel->supported()) {
        usage_error(name + ": this CPU lacks its instructions");
    }
    if (!trit_lookup_selftest(kernel, message, sizeof(message))) {
        usage_error(name + ": self-test failed: " + message);
    }
    return kernel;
}

/// NAME, NAME@PANELS or NAME@PANELS:LEAST.
LookupChoice choice_named(const std::string& text) {
    const size_t at = text.find('@');
    LookupChoice choice = LookupChoice::of(lookup_named(text.substr(0, at)));
    if (choice.kernel == nullptr) {
        usage_error("--packings " + text +
                    ": there are 2_bits, 5_trits, tl1, tl2, in_place, lookup, and look-up kernels' names");
    }
    if (at != std::string::npos) {
        int end = 0;
        int least = choice.least_tokens;
        const int count = std::sscanf(text.c_str() + at, "@%d%n:%d%n", &choice.panels, &end, &least, &end);
        if (count < 1 || at + static_cast<size_t>(end) != text.size() || choice.panels < 1 ||
            choice.panels > choice.kernel->panels || least < 1 || least > choice.kernel->tokens) {
            usage_error(text + ": expected NAME@PANELS or NAME@PANELS:LEAST, up to " +
                        std::to_string(choice.kernel->panels) + " panels and " +
                        std::to_string(choice.kernel->tokens) + " tokens");
        }
        choice.least_tokens = least;
    }
    return choice;
}

}  // namespace

Matrix Matrix::named(const std::string& text) {
    long long n = 0;
    long long k = 0;
    char rest = 0;
    if (std::sscanf(text.c_str(), "%lldx%lld%c", &n, &k, &rest) != 2 || n < 1 || n > 1 << 20 || k < 32 ||
        k % 32 != 0 || k > TRIT_PANEL_MAX_K) {
        usage_error("--shapes " + text + ": expected NxK, K a multiple of 32 and at most " +
                    std::to_string(TRIT_PANEL_MAX_K));
    }
    return {n, k};
}

Way Way::named(const std::string& text) {
    const size_t plus = text.find('+');
    if (plus != std::string::npos) {
        Way way = named(text.substr(0, plus));
        const Way many = named(text.substr(plus + 1));
        const bool packed = way.layout == Layout::kTables || way.layout == Layout::kTwoBits;
        if (!packed || (many.layout != Layout::kTwoBits && many.layout != Layout::kLookup)) {
            usage_error(text +
                        ": expected 2_bits, tl1 or tl2, +, and 2_bits or a look-up kernel for many tokens");
        }
        way.name = text;
        way.many = many.many;
        return way;
    }
    if (text == "2_bits") {
        return {text, Layout::kTwoBits, {}, {}};
    }
    if (text == "5_trits") {
        return {text, Layout::kFiveTrits, {}, {}};
    }
    if (text == "in_place") {
        return {text, Layout::kInPlace, {}, {}};
    }
    const LookupChoice usual = LookupChoice::of(trit_lookup_chosen(TRIT_PACKING_2_BITS));
    if (text == "lookup") {
        return {text, Layout::kLookup, {}, usual};
    }
    for (const trit_packing packing : {TRIT_PACKING_TL1, TRIT_PACKING_TL2}) {
        if (text == packing_name(packing)) {
            return {text, Layout::kTables, LookupChoice::of(trit_lookup_chosen(packing)), usual};
        }
    }
    const LookupChoice choice = choice_named(text);
    return choice.kernel->packing == TRIT_PACKING_2_BITS ? Way{text, Layout::kLookup, {}, choice}
                                                         : Way{text, Layout::kTables, choice, usual};
}

bool Product::possible(int m, int threads) const {
    switch (way_.layout) {
        case Way::Layout::kInPlace:
            return matrix_.k % TRIT_I2_S_BLOCK == 0;
        case Way::Layout::kLookup:
            // A rest that the tier's own kernel would take is no measure of the look-up kernel.
            return plan(m, threads).tokens() == m;
        case Way::Layout::kTables:
            return way_.few.kernel != nullptr && (looks_up(m) || way_.few.kernel->to_2_bits != nullptr);
        default:
            return tier_.panel[static_cast<int>(way_.layout)] != nullptr;
    }
}

size_t Product::scratch_bytes(int m, int threads) const {
    if (looks_up(m)) {
        const int tokens = std::min(m, way_.few.kernel->tokens);
        const auto sums = static_cast<size_t>(tokens * way_.few.panels * TRIT_PANEL_ROWS) * sizeof(int32_t);
        return align_up(way_.few.kernel->work_bytes) + sums;
    }
    const auto block = static_cast<size_t>(token_block(matrix_.k, m));
    const size_t sums = block * TRIT_PANEL_ROWS * sizeof(int32_t);
    const size_t panel = way_.layout == Way::Layout::kTables ? two_bits_bytes() : 0;
    return std::max(align_up(sums) + panel, plan(m, threads).scratch_bytes());
}

size_t Product::shared_bytes(int m, int threads) const {
    return unpacks(m, threads) ? static_cast<size_t>(panels()) * two_bits_bytes() : 0;
}

size_t Product::bytes() const {
    return way_.layout == Way::Layout::kInPlace ? static_cast<size_t>(matrix_.n * matrix_.k / 4)
                                                : static_cast<size_t>(panels()) * panel_bytes();
}

size_t Product::panel_bytes() const {
    const bool trits = way_.layout == Way::Layout::kFiveTrits;
    const trit_packing own = trits ? TRIT_PACKING_5_TRITS : TRIT_PACKING_2_BITS;
    return trit_panel_bytes(way_.few.kernel != nullptr ? way_.few.kernel->packing : own, matrix_.k);
}

void Product::run(const uint8_t* weights, int thread, int threads, const Activations& act, int m,
                  const Room& room, float* out) const {
    if (looks_up(m)) {
        look_up(weights, thread, threads, act, m, room.scratch, out);
        return;
    }
    const LookupPlan looked_up = plan(m, threads);
    if (looked_up.tokens() > 0) {
        if (unpacks(m, threads)) {
            unpack(weights, thread, threads, room.shared);
            room.barrier->wait();
        }
        const Panels of_2_bits{matrix_.k, matrix_.n, unpacks(m, threads) ? room.shared : weights,
                               two_bits_bytes(), kScale};
        looked_up.run(tier_, of_2_bits, act, 0, thread, threads, room.scratch,
                      [&](int64_t j) { return out + j * matrix_.n; });
    }
    multiply(weights, thread, threads, act, static_cast<int>(looked_up.tokens()), m, room.scratch, out);
}

/// As PackedMatrix does it.
void Product::look_up(const uint8_t* weights, int thread, int threads, const Activations& act, int m,
                      char* scratch, float* out) const {
    const trit_lookup_kernel& kernel = *way_.few.kernel;
    const Panels indices{matrix_.k, matrix_.n, weights, panel_bytes(), kScale};
    auto* sums = reinterpret_cast<int32_t*>(scratch + align_up(kernel.work_bytes));
    const int64_t last = panels() * (thread + 1) / threads;
    for (int t = 0; t < m; t += kernel.tokens) {
        const int tokens = std::min(kernel.tokens, m - t);
        for (int64_t p = panels() * thread / threads; p < last; p += way_.few.panels) {
            const int count = static_cast<int>(std::min<int64_t>(way_.few.panels, last - p));
            const size_t stride = static_cast<size_t>(count) * TRIT_PANEL_ROWS;
            kernel.multiply(matrix_.k, weights + static_cast<size_t>(p) * panel_bytes(), panel_bytes(), count,
                            act.q(t), act.row_bytes(), tokens, scratch, sums, stride);
            for (int j = 0; j < tokens; ++j) {
                finish_panels(tier_, indices, p, count, sums + static_cast<size_t>(j) * stride,
                              *act.scale(t + j), out + (t + j) * matrix_.n);
            }
        }
    }
}

void Product::unpack(const uint8_t* weights, int thread, int threads, uint8_t* shared) const {
    const int64_t last = panels() * (thread + 1) / threads;
    for (int64_t p = panels() * thread / threads; p < last; ++p) {
        way_.few.kernel->to_2_bits(matrix_.k, weights + static_cast<size_t>(p) * panel_bytes(),
                                   shared + static_cast<size_t>(p) * two_bits_bytes());
    }
}

void Product::multiply(const uint8_t* weights, int thread, int threads, const Activations& act, int first,
                       int m, char* scratch, float* out) const {
    auto* c = reinterpret_cast<int32_t*>(scratch);
    const int64_t last = panels() * (thread + 1) / threads;
    const int block = token_block(matrix_.k, m);
    for (int t = first; t < m; t += block) {
        const int count = std::min(block, m - t);
        for (int64_t p = panels() * thread / threads; p < last; ++p) {
            const int64_t row = p * TRIT_PANEL_ROWS;
            const int rows = static_cast<int>(std::min<int64_t>(TRIT_PANEL_ROWS, matrix_.n - row));
            multiply_panel(weights, p, rows, act.q(t), act.row_bytes(), count, c);
            for (int j = 0; j < count; ++j) {
                tier_.finish(rows, c + j * TRIT_PANEL_ROWS, *act.sum(t + j), *act.scale(t + j), &kScale, 0,
                             out + (t + j) * matrix_.n + row);
            }
        }
    }
}

void Product::multiply_panel(const uint8_t* weights, int64_t p, int rows, const int8_t* q, size_t q_row_bytes,
                             int m, int32_t* c) const {
    if (way_.layout == Way::Layout::kInPlace) {
        const auto row_bytes = static_cast<size_t>(matrix_.k / 4);
        tier_.i2_s(matrix_.k, weights + static_cast<size_t>(p) * TRIT_PANEL_ROWS * row_bytes, row_bytes, rows,
                   q, q_row_bytes, m, c, TRIT_PANEL_ROWS);
        return;
    }
    const uint8_t* panel = weights + static_cast<size_t>(p) * panel_bytes();
    if (way_.layout == Way::Layout::kTables) {
        auto* two_bits = reinterpret_cast<uint8_t*>(c) +
                         align_up(static_cast<size_t>(m) * TRIT_PANEL_ROWS * sizeof(int32_t));
        way_.few.kernel->to_2_bits(matrix_.k, panel, two_bits);
        panel = two_bits;
    }
    const bool trits = way_.layout == Way::Layout::kFiveTrits;
    tier_.panel[trits ? TRIT_PACKING_5_TRITS : TRIT_PACKING_2_BITS](matrix_.k, panel, q, q_row_bytes, m, c);
}

Operands::Operands(const trit_tier& tier, const Matrix& matrix, int m, int threads, size_t scratch_bytes,
                   size_t shared_bytes)
    : m_(m),
      threads_(threads),
      k_(matrix.k),
      // Two cache lines between the threads' parts.
      scratch_step_(align_up(scratch_bytes) + 2 * kCacheLine),
      act_memory_(Activations::bytes(m, matrix.k, 0)),
      scratch_memory_(scratch_step_ * static_cast<size_t>(threads) + kCacheLine),
      shared_memory_(align_up(shared_bytes + 1), true),
      out_(static_cast<size_t>(m * matrix.n)) {
    const Activations act(act_memory_.data(), m, k_, 0);
    std::vector<float> x(static_cast<size_t>(k_));
    for (int j = 0; j < m; ++j) {
        for (size_t i = 0; i < x.size(); ++i) {
            x[i] = static_cast<float>((i + static_cast<size_t>(j)) * 37 % 255) - 127.0f;
        }
        act.quantize(tier, x.data(), j);
    }
}

double Operands::time(const Product& product, const Memory& weights, size_t step, size_t first, size_t copies,
                      int loops) {
    Barrier barrier(threads_);
    const Activations act(act_memory_.data(), m_, k_, 0);
    auto* scratch = reinterpret_cast<char*>(align_up(reinterpret_cast<size_t>(scratch_memory_.data())));
    return together(threads_, [&](int thread) {
        const Room room{scratch + scratch_step_ * static_cast<size_t>(thread), shared_memory_.data(),
                        &barrier};
        for (int i = 0; i < loops; ++i) {
            product.run(weights.data() + (first + static_cast<size_t>(i)) % copies * step, thread, threads_,
                        act, m_, room, out_.data());
            barrier.wait();
        }
    });
}

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

}  // namespace trit
