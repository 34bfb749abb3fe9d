// SPDX-License-Identifier: MIT
/// Of one token's nodes more than a third need no barrier: ops of a single row are the first thread's alone,
/// and products that read the same activations write different results.
#include "ggml/order.h"

#include <cstdint>

#include "ggml-impl.h"
#include "ggml.h"
#include "ggml/mul_mat.h"
#include "ggml/repack.h"

namespace {

enum class Kind {
    kOther,
    kRow,      ///< the first thread computes it; no memory but its operands'
    kProduct,  ///< each thread its rows; no barrier inside, work memory of its own
};

/// ggml shares these out by rows, so that one row is the first thread's.
bool is_by_rows(const ggml_tensor* op) {
    switch (op->op) {
        case GGML_OP_ADD:
        case GGML_OP_MUL:
        case GGML_OP_SQR:
        case GGML_OP_UNARY:
        case GGML_OP_GLU:
        case GGML_OP_RMS_NORM:
            // Other types of sums and products take work memory.
            return op->type == GGML_TYPE_F32 && op->src[0]->type == GGML_TYPE_F32 && ggml_nrows(op) == 1;
        case GGML_OP_SET_ROWS:
            return ggml_nrows(op->src[0]) == 1;
        default:
            return false;
    }
}

Kind kind_of(const ggml_tensor* op) {
    if (op->src[0] == nullptr) {
        return Kind::kOther;
    }
    if (is_by_rows(op)) {
        return Kind::kRow;
    }
    return op->op == GGML_OP_MUL_MAT && trit::is_ours(op->src[0]) && ggml_nrows(op->src[1]) == 1
               ? Kind::kProduct
               : Kind::kOther;
}

bool overlap(const ggml_tensor* a, const ggml_tensor* b) {
    const auto* start_a = static_cast<const char*>(a->data);
    const auto* start_b = static_cast<const char*>(b->data);
    return start_a < start_b + ggml_nbytes(b) && start_b < start_a + ggml_nbytes(a);
}

/// Whether one reads or writes what the other writes.
bool meet(const ggml_tensor* a, const ggml_tensor* b) {
    if (overlap(a, b)) {
        return true;
    }
    for (int i = 0; i < GGML_MAX_SRC; ++i) {
        if ((a->src[i] != nullptr && overlap(a->src[i], b)) ||
            (b->src[i] != nullptr && overlap(b->src[i], a))) {
            return true;
        }
    }
    return false;
}

/// Whether the second may begin before all threads have done the first.
bool are_free(const ggml_tensor* first, Kind a, const ggml_tensor* second, Kind b, int threads) {
    if (a == Kind::kRow && b == Kind::kRow) {
        return true;  // in order, by the same thread
    }
    if (a == Kind::kProduct && b == Kind::kProduct && !trit::same_work_memory(first, second, threads)) {
        return false;
    }
    return !meet(first, second);
}

bool is_computed(const ggml_tensor* op) {
    return !ggml_op_is_empty(op->op) && (op->flags & GGML_TENSOR_FLAG_COMPUTE) != 0;
}

}  // namespace

bool trit_goes_on(const ggml_cgraph* graph, int first, int next, int threads) {
    while (next < graph->n_nodes && !is_computed(graph->nodes[next])) {
        ++next;
    }
    if (next == graph->n_nodes) {
        return false;
    }
    const ggml_tensor* op = graph->nodes[next];
    const Kind kind = kind_of(op);
    if (kind == Kind::kOther) {
        return false;
    }
    for (int i = first; i < next; ++i) {
        const ggml_tensor* before = graph->nodes[i];
        if (is_computed(before)) {
            const Kind other = kind_of(before);
            if (other == Kind::kOther || !are_free(before, other, op, kind, threads)) {
                return false;
            }
        }
    }
    return true;
}
