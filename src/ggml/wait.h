// SPDX-License-Identifier: MIT
/// How threads wait for each other, and how many there are: they spin for as long as it takes to fall asleep
/// and wake up, then sleep; and a graph gets fewer threads while that is faster (thread_count.h).
///
/// On an idle machine the other thread arrives while this one spins. On a busy one it may not even run: a
/// thread that spins then takes the CPU that it waits for. Patch 0020 calls these functions. Plain C: ggml's
/// own file includes it.
#ifndef TRIT_GGML_WAIT_H
#define TRIT_GGML_WAIT_H

#include <stdbool.h>

struct ggml_cgraph;

#ifdef __cplusplus
extern "C" {
#endif

/// Returns once the int at `counter`, which others change atomically, is no longer `value`.
void trit_wait(const void* counter, int value);
/// Call it behind each change of `counter`. Without sleepers it costs a fence and a load.
void trit_wake(const void* counter);
/// Spins until `ready(state)`, at most as long as trit_wait does before it sleeps. Returns what it said last.
bool trit_spin(bool (*ready)(void* state), void* state);

/// Threads, at most `most`, that the caller gives to the graph, which it computes now.
int trit_graph_begin(const struct ggml_cgraph* graph, int most);
/// The caller has computed it.
void trit_graph_end(const struct ggml_cgraph* graph);

#ifdef __cplusplus
}
#endif

#endif  // TRIT_GGML_WAIT_H
