// SPDX-License-Identifier: MIT
#include "tools/product.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <random>

#include "kernels/packing_names.h"
#include "matrix/tuning.h"

namespace trit {
namespace {

constexpr float kScale = 1.0f;

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
        usage_error(
            "--packings " + text +
            ": there are 2_bits, 5_trits, 1_bit, tl1, tl2, in_place, lookup, and look-up kernels' names");
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

/// "2_bits", "5_trits" or "1_bit", and perhaps "/16": the most tokens of a call; perhaps ":128": the inputs
/// of a group.
bool is_own(const std::string& whole, Method* method, int64_t* group) {
    const size_t colon = whole.find(':');
    const std::string text = whole.substr(0, colon);
    if (colon != std::string::npos) {
        long long inputs = 0;
        int end = 0;
        if (std::sscanf(whole.c_str() + colon, ":%lld%n", &inputs, &end) != 1 ||
            colon + static_cast<size_t>(end) != whole.size() || inputs < 32 || inputs % 32 != 0) {
            return false;
        }
        *group = inputs;
    }
    for (const trit_packing packing : {TRIT_PACKING_2_BITS, TRIT_PACKING_5_TRITS, TRIT_PACKING_1_BIT}) {
        const std::string name = packing_name(packing);
        int end = 0;
        method->packing = packing;
        method->at_once = tokens_at_once(packing);
        if (text == name || (text.rfind(name + "/", 0) == 0 &&
                             std::sscanf(text.c_str() + name.size(), "/%d%n", &method->at_once, &end) == 1 &&
                             name.size() + static_cast<size_t>(end) == text.size() && method->at_once >= 0)) {
            return true;
        }
    }
    *method = {};
    *group = 0;
    return false;
}

Way Way::named(const std::string& text) {
    Way way;
    way.name = text;
    Method& method = way.method;
    const size_t plus = text.find('+');
    if (plus != std::string::npos) {
        const Way few = named(text.substr(0, plus));
        const Method many = named(text.substr(plus + 1)).method;
        method = few.method;
        const bool packed = PackedMatrix::may_have_tables(method.packing) && few.group == 0 &&
                            method.storage == Storage::kPanels;
        if (!packed || few.only_tables || many.packing != TRIT_PACKING_2_BITS ||
            many.storage != Storage::kPanels) {
            usage_error(text +
                        ": expected 2_bits, tl1 or tl2, +, and 2_bits or a look-up kernel for many tokens");
        }
        method.many = many.many;
        method.at_once = many.at_once;
        return way;
    }
    if (is_own(text, &method, &way.group)) {
        return way;
    }
    if (text == "in_place") {
        method.storage = Storage::kI2S;
        return way;
    }
    const LookupChoice usual = LookupChoice::of(trit_lookup_chosen(TRIT_PACKING_2_BITS));
    method.many = usual;
    if (text == "lookup") {
        way.only_tables = true;
        return way;
    }
    for (const trit_packing packing : {TRIT_PACKING_TL1, TRIT_PACKING_TL2}) {
        if (text == packing_name(packing)) {
            method.packing = packing;
            method.few = LookupChoice::of(trit_lookup_chosen(packing));
            method.at_once = tokens_at_once(packing);
            return way;
        }
    }
    const LookupChoice choice = choice_named(text);
    method.packing = choice.kernel->packing;
    method.at_once = tokens_at_once(method.packing);
    if (method.packing == TRIT_PACKING_2_BITS) {
        method.many = choice;
        way.only_tables = true;
    } else {
        method.few = choice;
    }
    return way;
}

Product::Product(const trit_tier& tier, const Way& way, const Matrix& matrix)
    : tier_(tier),
      way_(way),
      matrix_(matrix),
      header_{matrix.k,
              matrix.n,
              way.group,
              way.method.packing,
              static_cast<int64_t>(PackedMatrix::panel_bytes(way.method.packing, matrix.k, way.group)),
              0,
              0,
              kScale} {}

bool Product::possible(int m, int threads) const {
    const Method& method = way_.method;
    if (method.storage == Storage::kI2S) {
        return matrix_.k % TRIT_I2_S_BLOCK == 0;
    }
    if (method.packing < TRIT_TIER_PACKINGS) {
        return tier_.panel[method.packing] != nullptr && (way_.group == 0 || matrix_.k % way_.group == 0) &&
               (!way_.only_tables || matmul(m, threads).tables().tokens() == m);
    }
    return method.few.kernel != nullptr && (m < kLeastUnpacked || method.few.kernel->to_2_bits != nullptr);
}

size_t Product::bytes() const {
    if (way_.method.storage == Storage::kI2S) {
        return static_cast<size_t>(matrix_.n * matrix_.k / 4);
    }
    return static_cast<size_t>(PackedMatrix(&header_, nullptr).panels() * header_.panel_bytes);
}

void Product::run(const uint8_t* weights, int thread, int threads, const Activations& act, int m,
                  const Room& room, float* out) const {
    const Matmul product = matmul(m, threads);
    const auto row_of = [&](int64_t j) { return out + j * matrix_.n; };
    if (way_.method.storage == Storage::kI2S) {
        static const Encoding& i2_s = *find_encoding("i2_s");
        const Weights rows = Weights::rows(i2_s, weights, static_cast<size_t>(matrix_.k / 4), kScale);
        product.run(rows, act, 0, m, thread, room.scratch, row_of);
        return;
    }
    PackedMatrix panels(&header_, weights);
    if (product.must_unpack(panels)) {
        product.unpack(panels, thread, room.shared);
        room.barrier->wait();
        panels = PackedMatrix(room.shared);
    }
    product.run(Weights::panels(panels, 0), act, 0, m, thread, room.scratch, row_of);
}

Operands::Operands(const trit_tier& tier, const Matrix& matrix, int64_t group, int m, int threads,
                   size_t scratch_bytes, size_t shared_bytes)
    : m_(m),
      threads_(threads),
      k_(matrix.k),
      group_(group),
      // Two cache lines between the threads' parts.
      scratch_step_(align_up(scratch_bytes) + 2 * kCacheLine),
      act_memory_(Activations::bytes(m, matrix.k, group)),
      scratch_memory_(scratch_step_ * static_cast<size_t>(threads) + kCacheLine),
      shared_memory_(align_up(shared_bytes + 1), true),
      out_(static_cast<size_t>(m * matrix.n)) {
    const Activations act(act_memory_.data(), m, k_, group_);
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
    const Activations act(act_memory_.data(), m_, k_, group_);
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
