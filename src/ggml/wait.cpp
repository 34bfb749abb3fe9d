// SPDX-License-Identifier: MIT
#include "ggml/wait.h"

#include <array>
#include <atomic>
#include <chrono>
#include <thread>

#include "ggml-impl.h"
#include "ggml/thread_count.h"

namespace {

using Clock = std::chrono::steady_clock;

/// Spinning for as long as a sleep costs takes at most twice the time of the better choice (the ski-rental
/// bound). Falling asleep and waking up takes some 5 us, and 50 to 100 us where a virtual machine's CPU has
/// gone idle. Other waits of an idle machine are shorter.
constexpr std::chrono::microseconds kSpin{100};
/// Looks at a counter between two looks at the clock: some microseconds.
constexpr int kRounds = 32;

/// Seconds that this thread has slept at barriers.
thread_local double slept = 0.0;

double seconds(Clock::time_point time) {
    return std::chrono::duration<double>(time.time_since_epoch()).count();
}

void relax() {
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");  // yield does nothing on most cores
#elif defined(__riscv)
    __asm__ volatile(".4byte 0x100000F" ::: "memory");  // pause, a hint that older cores ignore
#else
    std::this_thread::yield();
#endif
}

template <class Ready>
bool look(const Ready& ready) {
    for (int i = 0; i < kRounds; ++i) {
        if (ready()) {
            return true;
        }
        relax();
    }
    return false;
}

/// ggml's counters are C's atomic_int, or an int of the same bits.
std::atomic<int>& shared(const void* counter) {
    static_assert(sizeof(std::atomic<int>) == sizeof(int) && std::atomic<int>::is_always_lock_free);
    return *static_cast<std::atomic<int>*>(const_cast<void*>(counter));
}

/// The choices of this thread, by the number of tokens: powers of two.
trit::ThreadCount& thread_count(const ggml_cgraph* graph) {
    thread_local std::array<trit::ThreadCount, 16> counts;
    size_t kind = 0;
    for (int64_t tokens = graph->n_nodes > 0 ? graph->nodes[0]->ne[1] : 0; tokens > 1; tokens /= 2) {
        ++kind;
    }
    return counts[std::min(kind, counts.size() - 1)];
}

thread_local Clock::time_point graph_start;

}  // namespace

void trit_wait(const void* counter, int value) {
    const auto changed = [&] { return shared(counter).load(std::memory_order_relaxed) != value; };
    if (look(changed)) {  // most waits, and no clock
        return;
    }
    const Clock::time_point start = Clock::now();
    do {
        if (look(changed)) {
            return;
        }
    } while (Clock::now() - start < kSpin);
    shared(counter).wait(value, std::memory_order_relaxed);
    slept += seconds(Clock::now()) - seconds(start);
}

void trit_wake(const void* counter) {
    std::atomic_thread_fence(std::memory_order_seq_cst);  // libstdc++ looks for sleepers by an acquire load
    shared(counter).notify_all();
}

bool trit_spin(bool (*ready)(void* state), void* state) {
    const Clock::time_point start = Clock::now();
    do {
        if (look([&] { return ready(state); })) {
            return true;
        }
    } while (Clock::now() - start < kSpin);
    return false;
}

int trit_graph_begin(const ggml_cgraph* graph, int most) {
    graph_start = Clock::now();
    slept = 0.0;
    return most < 2 ? most : thread_count(graph).next(most);
}

void trit_graph_end(const ggml_cgraph* graph) {
    thread_count(graph).done(seconds(graph_start), seconds(Clock::now()), slept);
}
