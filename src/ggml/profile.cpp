// SPDX-License-Identifier: MIT
#include "ggml/profile.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "ggml-impl.h"
#include "ggml/repack.h"
#include "matrix/packed_matrix.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kFewTokens = 16;
constexpr const char* kPartNames[TRIT_PARTS] = {"ternary_one", "ternary_few",  "ternary_many", "quantize",
                                                "head",        "other_matrix", "attention",    "elementwise",
                                                "rows",        "other",        "barrier"};

/// Graphs are told apart by the tokens that go in: text, small batches, prompts.
enum Regime { kOne, kFew, kMany, kRegimes };
constexpr const char* kRegimeNames[kRegimes] = {"one", "few", "many"};

Regime regime_of(int64_t tokens) { return tokens <= 1 ? kOne : tokens <= kFewTokens ? kFew : kMany; }

struct Sum {
    double seconds = 0;  ///< of this thread, divided by the graph's threads: over all threads, the mean
    double calls = 0;    ///< this and the following: counted by thread 0
    double macs = 0;
    double weight_bytes = 0;
};

struct Regimes {
    Sum parts[TRIT_PARTS];
    double graphs = 0;
    double tokens = 0;
    double seconds = 0;
};

/// A thread's sums, and where it is.
struct Counter {
    Regimes regimes[kRegimes];
    int thread = 0;
    int threads = 1;
    int number = 0;  ///< of the graph, from 1; 0 until the thread has met thread 0 in it
    Regime regime = kOne;
    trit_part part = TRIT_PART_OTHER;
    trit_part before = TRIT_PART_OTHER;  ///< the part that a barrier interrupts
    Clock::time_point since;
    Clock::time_point graph_since;

    Sum& sum(trit_part p) { return regimes[regime].parts[p]; }
    void add_time(trit_part next) {
        const Clock::time_point now = Clock::now();
        sum(part).seconds += std::chrono::duration<double>(now - since).count() / threads;
        since = now;
        part = next;
    }
};

class Profile {
 public:
    Profile() {
        if (const char* name = std::getenv("TRIT_PROFILE"); name != nullptr && *name != '\0') {
            path_ = name;
            trit_profiling = true;
        }
        if (const char* count = std::getenv("TRIT_PROFILE_SKIP"); count != nullptr) {
            skip_ = std::atoi(count);
        }
    }
    ~Profile() {
        if (path_ != nullptr) {
            write();
        }
    }

    Counter& of_this_thread() {
        thread_local Counter* own = nullptr;
        if (own == nullptr) {
            const std::lock_guard<std::mutex> lock(mutex_);
            counters_.push_back(std::make_unique<Counter>());
            own = counters_.back().get();
        }
        return *own;
    }

    /// Thread 0 starts the next graph.
    void graph_started() { ++started_; }
    /// The graph of the threads that have passed a barrier in it and not its last one.
    int graph() const { return started_; }
    /// The first graphs only warm up.
    bool skips(int graph) const { return graph <= skip_; }

 private:
    /// {"threads": most, "regimes": {one|few|many: {"graphs", "tokens", "seconds", "parts": {name:
    /// {"seconds", "calls", "macs", "weight_bytes"}}}}}. A part's seconds are the mean over the threads; the
    /// parts of a regime add up to its seconds, which are thread 0's.
    void write() const {
        std::FILE* file = std::fopen(path_, "w");
        if (file == nullptr) {
            std::fprintf(stderr, "warning: trit: TRIT_PROFILE=%s: cannot be written\n", path_);
            return;
        }
        int threads = 1;
        Regimes total[kRegimes];
        for (const auto& counter : counters_) {
            threads = counter->threads > threads ? counter->threads : threads;
            for (int r = 0; r < kRegimes; ++r) {
                const Regimes& from = counter->regimes[r];
                total[r].graphs += from.graphs;
                total[r].tokens += from.tokens;
                total[r].seconds += from.seconds;
                for (int p = 0; p < TRIT_PARTS; ++p) {
                    total[r].parts[p].seconds += from.parts[p].seconds;
                    total[r].parts[p].calls += from.parts[p].calls;
                    total[r].parts[p].macs += from.parts[p].macs;
                    total[r].parts[p].weight_bytes += from.parts[p].weight_bytes;
                }
            }
        }
        std::fprintf(file, "{\"threads\": %d, \"regimes\": {", threads);
        for (int r = 0; r < kRegimes; ++r) {
            std::fprintf(
                file, "%s\n  \"%s\": {\"graphs\": %.0f, \"tokens\": %.0f, \"seconds\": %.9f, \"parts\": {",
                r > 0 ? "," : "", kRegimeNames[r], total[r].graphs, total[r].tokens, total[r].seconds);
            for (int p = 0; p < TRIT_PARTS; ++p) {
                const Sum& s = total[r].parts[p];
                std::fprintf(file,
                             "%s\n    \"%s\": {\"seconds\": %.9f, \"calls\": %.0f, \"macs\": %.0f, "
                             "\"weight_bytes\": %.0f}",
                             p > 0 ? "," : "", kPartNames[p], s.seconds, s.calls, s.macs, s.weight_bytes);
            }
            std::fprintf(file, "}}");
        }
        std::fprintf(file, "}}\n");
        const bool failed = std::ferror(file) != 0;
        if (std::fclose(file) != 0 || failed) {
            std::fprintf(stderr, "warning: trit: TRIT_PROFILE=%s: could not be written whole\n", path_);
            std::remove(path_);
        }
    }

    const char* path_ = nullptr;
    int skip_ = 0;
    std::atomic<int> started_{0};
    std::mutex mutex_;
    std::vector<std::unique_ptr<Counter>> counters_;
};

/// A weight is read from the file; everything else is computed.
bool is_weight(const ggml_tensor* w) { return w->op == GGML_OP_NONE; }

bool is_product(const ggml_tensor* node) {
    return node->op == GGML_OP_MUL_MAT || node->op == GGML_OP_MUL_MAT_ID;
}

/// Tokens of a product; with experts, pairs of a token and an expert.
int64_t tokens_of(const ggml_tensor* product) { return ggml_nrows(product); }

/// Those that go into the graph: its first product has them all.
int64_t tokens_of(const ggml_cgraph* graph) {
    for (int i = 0; i < graph->n_nodes; ++i) {
        const ggml_tensor* node = graph->nodes[i];
        if (is_product(node) && is_weight(node->src[0])) {
            return node->op == GGML_OP_MUL_MAT ? tokens_of(node) : node->ne[2];
        }
    }
    return 1;
}

trit_part part_of_product(const ggml_tensor* node) {
    const ggml_tensor* w = node->src[0];
    if (!is_weight(w)) {
        return TRIT_PART_ATTENTION;
    }
    if (trit::encoding_of(w->type) != nullptr) {
        constexpr trit_part parts[kRegimes] = {TRIT_PART_TERNARY_ONE, TRIT_PART_TERNARY_FEW,
                                               TRIT_PART_TERNARY_MANY};
        return parts[regime_of(tokens_of(node))];
    }
    // llama.cpp's name for the logits, in every model's graph.
    return std::strcmp(node->name, "result_output") == 0 ? TRIT_PART_HEAD : TRIT_PART_OTHER_MATRIX;
}

trit_part part_of(const ggml_tensor* node) {
    switch (node->op) {
        case GGML_OP_MUL_MAT:
        case GGML_OP_MUL_MAT_ID:
            return part_of_product(node);
        case GGML_OP_FLASH_ATTN_EXT:
        case GGML_OP_GATED_DELTA_NET:
        case GGML_OP_SSM_CONV:
        case GGML_OP_SOFT_MAX:
        case GGML_OP_ROPE:
        case GGML_OP_SET_ROWS:
        case GGML_OP_CPY:
        case GGML_OP_CONT:
        case GGML_OP_DUP:
            return TRIT_PART_ATTENTION;
        case GGML_OP_NORM:
        case GGML_OP_RMS_NORM:
        case GGML_OP_ADD:
        case GGML_OP_MUL:
        case GGML_OP_SCALE:
        case GGML_OP_SQR:
        case GGML_OP_UNARY:
        case GGML_OP_GLU:
            return TRIT_PART_ELEMENTWISE;
        case GGML_OP_GET_ROWS:
            return TRIT_PART_ROWS;
        default:
            return TRIT_PART_OTHER;
    }
}

/// Bytes of one of a tensor's matrices, as they are in memory.
double matrix_bytes(const ggml_tensor* w) {
    if (trit::is_packed(w)) {
        const trit::PackedMatrix matrix(w->data);
        return static_cast<double>(matrix.matrix(0).panel_bytes) * static_cast<double>(matrix.panels());
    }
    return static_cast<double>(ggml_nbytes(w)) / static_cast<double>(w->ne[2] * w->ne[3]);
}

void count_work(const ggml_tensor* node, Sum& sum) {
    sum.calls += 1;
    if (!is_product(node) || !is_weight(node->src[0])) {
        return;
    }
    const ggml_tensor* w = node->src[0];
    sum.macs += static_cast<double>(w->ne[0]) * static_cast<double>(ggml_nelements(node));
    // Of a stack of experts no more are read than there are pairs.
    const int64_t matrices = w->ne[2] * w->ne[3];
    const int64_t read = node->op == GGML_OP_MUL_MAT ? matrices : std::min(matrices, tokens_of(node));
    sum.weight_bytes += matrix_bytes(w) * static_cast<double>(read);
}

}  // namespace

bool trit_profiling = false;

namespace {

Profile profile;

}  // namespace

void trit_profile_graph(const ggml_cgraph* graph, int thread, int threads) {
    Counter& counter = profile.of_this_thread();
    const int64_t tokens = tokens_of(graph);
    counter.thread = thread;
    counter.threads = threads;
    counter.regime = regime_of(tokens);
    counter.part = TRIT_PART_OTHER;
    counter.number = 0;
    if (thread == 0) {
        profile.graph_started();
        counter.number = profile.graph();
        counter.regimes[counter.regime].graphs += 1;
        counter.regimes[counter.regime].tokens += static_cast<double>(tokens);
    }
    counter.since = counter.graph_since = Clock::now();
}

void trit_profile_graph_end(void) {
    Counter& counter = profile.of_this_thread();
    counter.add_time(TRIT_PART_OTHER);
    if (counter.thread == 0) {
        counter.regimes[counter.regime].seconds +=
            std::chrono::duration<double>(counter.since - counter.graph_since).count();
    }
    if (profile.skips(counter.number)) {
        counter = Counter();
    }
}

void trit_profile_node(const ggml_tensor* node) {
    Counter& counter = profile.of_this_thread();
    const trit_part part = part_of(node);
    counter.add_time(part);
    if (counter.thread == 0) {
        count_work(node, counter.sum(part));
    }
}

void trit_profile_quantize(void) { profile.of_this_thread().add_time(TRIT_PART_QUANTIZE); }

void trit_profile_product(const ggml_tensor* node) {
    profile.of_this_thread().add_time(part_of_product(node));
}

void trit_profile_barrier(void) {
    Counter& counter = profile.of_this_thread();
    counter.before = counter.part;
    counter.add_time(TRIT_PART_BARRIER);
    if (counter.thread == 0) {
        counter.sum(TRIT_PART_BARRIER).calls += 1;
    }
}

void trit_profile_barrier_end(void) {
    Counter& counter = profile.of_this_thread();
    counter.add_time(counter.before);
    if (counter.number == 0) {
        counter.number = profile.graph();
    }
}
