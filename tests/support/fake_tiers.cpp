// SPDX-License-Identifier: MIT
/// `fake_tiers [then-illegal|own-handler]`: the real dispatch and self-test over tiers made up here; prints
/// what they choose. scalar.cpp is compiled with its descriptor renamed to trit_tier_reference, so that even
/// "scalar" can be missing.
///
/// FAULT=KERNEL:illegal or KERNEL:wrong   what tier "faulty" (the best one) does in that kernel
/// LACKS=NAME NAME ...                    tiers that this machine pretends not to have
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "trit.h"

extern "C" const trit_tier trit_tier_reference;

namespace {

void illegal_instruction() {
#if defined(__x86_64__)
    __asm__ volatile("ud2");
#elif defined(__aarch64__)
    __asm__ volatile(".inst 0");
#else
#error "write down an instruction that this CPU does not have"
#endif
}

std::string variable(const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
}

/// Stops if that is this kernel's fault; else whether its result has to be wrong.
bool fault(const char* kernel) {
    static const std::string planted = variable("FAULT");
    if (planted == std::string(kernel) + ":illegal") {
        illegal_instruction();
    }
    return planted == std::string(kernel) + ":wrong";
}

bool lacks(const char* name) {
    return (" " + variable("LACKS") + " ").find(std::string(" ") + name + " ") != std::string::npos;
}

std::atomic<int> asked{0};
int supported_faulty() {
    ++asked;
    return !lacks("faulty");
}
int supported_good() { return !lacks("good"); }
int supported_scalar() { return !lacks("scalar"); }
int never() { return 0; }

constexpr const trit_tier& kRight = trit_tier_reference;

void quantize(int64_t k, const float* x, int8_t* q, float* scale, int32_t* sum) {
    kRight.quantize(k, x, q, scale, sum);
    q[k - 1] = static_cast<int8_t>(q[k - 1] ^ fault("quantize"));
}
void i2_s(int64_t k, const uint8_t* w, size_t w_row_bytes, int n, const int8_t* q, size_t q_row_bytes, int m,
          int32_t* c, size_t c_stride) {
    kRight.i2_s(k, w, w_row_bytes, n, q, q_row_bytes, m, c, c_stride);
    c[0] += fault("i2_s");
}
void panel_2_bits(int64_t k, const uint8_t* panel, const int8_t* q, size_t q_row_bytes, int m, int32_t* c) {
    kRight.panel[0](k, panel, q, q_row_bytes, m, c);
    c[m * TRIT_PANEL_ROWS - 1] += fault("panel of 2 bits");
}
void panel_5_trits(int64_t k, const uint8_t* panel, const int8_t* q, size_t q_row_bytes, int m, int32_t* c) {
    kRight.panel[1](k, panel, q, q_row_bytes, m, c);
    c[m * TRIT_PANEL_ROWS - 1] += fault("panel of 5 trits");
}
void finish(int n, const int32_t* c, int32_t act_sum, float act_scale, const float* w_scale, int w_step,
            float* out) {
    kRight.finish(n, c, act_sum, act_scale, w_scale, w_step, out);
    out[n - 1] *= fault("finish") ? 1.000001f : 1.0f;
}
void accumulate(const int32_t* c, int32_t act_sum, float act_step, const uint16_t* w_scale, float* acc) {
    kRight.accumulate(c, act_sum, act_step, w_scale, acc);
    acc[0] *= fault("accumulate") ? 1.000001f : 1.0f;
}
void q6_k(int64_t k, const uint8_t* w, size_t w_row_bytes, int64_t n, const uint8_t* tokens,
          size_t token_bytes, int m, float* const* out) {
    kRight.q6_k(k, w, w_row_bytes, n, tokens, token_bytes, m, out);
    out[m - 1][n - 1] *= fault("q6_k") ? 1.000001f : 1.0f;
}

trit_tier made(const char* name, int rank, int (*supported)()) {
    return {name,   "GOOD FORTUNE", rank,    supported, quantize, i2_s, {panel_2_bits, panel_5_trits},
            finish, accumulate,     nullptr, nullptr,   q6_k};
}

trit_tier renamed(const char* name, int rank, int (*supported)()) {
    trit_tier tier = trit_tier_reference;
    tier.name = name;
    tier.rank = rank;
    tier.supported = supported;
    return tier;
}

}  // namespace

extern "C" {
extern const trit_tier trit_tier_faulty;
extern const trit_tier trit_tier_good;
extern const trit_tier trit_tier_scalar;
extern const trit_tier trit_tier_absent;
const trit_tier trit_tier_faulty = made("faulty", 90, supported_faulty);
const trit_tier trit_tier_good = renamed("good", 50, supported_good);
const trit_tier trit_tier_scalar = renamed("scalar", 0, supported_scalar);
const trit_tier trit_tier_absent = renamed("absent", 99, never);
}

int main(int argc, char** argv) {
    const std::string afterwards = argc == 2 ? argv[1] : "";
    if (afterwards == "own-handler") {
        std::signal(SIGILL, [](int) { std::_Exit(77); });
    }
    for (int i = -1; i <= trit_tier_count(); ++i) {
        const trit_tier* tier = trit_tier_at(i);
        std::printf("%d: %s\n", i, tier == nullptr ? "none" : tier->name);
    }
    std::fflush(stdout);
    const int before = asked;
    const trit_tier* chosen[8] = {};
    std::vector<std::thread> threads;
    for (const trit_tier*& one : chosen) {
        threads.emplace_back([&one] { one = trit_tier_chosen(); });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    // Too late: a process has one tier.
    setenv("TRIT_TIER", "scalar", 1);
    setenv("LACKS", chosen[0]->name, 1);
    for (const trit_tier* one : chosen) {
        if (one != trit_tier_chosen()) {
            std::printf("not all threads have the same tier\n");
        }
    }
    std::printf("faulty was tried: %d\nchosen: %s\n", asked - before, chosen[0]->name);
    std::fflush(stdout);
    if (!afterwards.empty()) {
        illegal_instruction();
    }
    return 0;
}
