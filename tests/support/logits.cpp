// SPDX-License-Identifier: MIT
/// logits MODEL N [--no-repack]: the logits of tokens 0 .. N - 1, fed one batch, as raw float32 [N,
/// vocabulary] to stdout. Plain C API of llama.cpp, so that it can be linked with our engine and with an
/// unpatched one.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "llama.h"

int main(int argc, char** argv) {
    if (argc < 3) {
        return 2;
    }
    llama_backend_init();
    llama_model_params model_params = llama_model_default_params();
    model_params.use_extra_bufts = !(argc > 3 && std::strcmp(argv[3], "--no-repack") == 0);
    llama_model* model = llama_model_load_from_file(argv[1], model_params);
    if (model == nullptr) {
        return 3;
    }
    const int count = std::atoi(argv[2]);
    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<uint32_t>(count < 64 ? 64 : count);
    params.n_batch = params.n_ubatch = params.n_ctx;
    params.n_threads = params.n_threads_batch = 1;
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    llama_context* context = llama_init_from_model(model, params);
    if (context == nullptr) {
        return 4;
    }
    llama_batch batch = llama_batch_init(count, 0, 1);
    for (int i = 0; i < count; ++i) {
        batch.token[i] = i;
        batch.pos[i] = i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    batch.n_tokens = count;
    if (llama_decode(context, batch) != 0) {
        return 5;
    }
    const size_t vocabulary = static_cast<size_t>(llama_vocab_n_tokens(llama_model_get_vocab(model)));
    for (int i = 0; i < count; ++i) {
        std::fwrite(llama_get_logits_ith(context, i), sizeof(float), vocabulary, stdout);
    }
    llama_batch_free(batch);
    llama_free(context);
    llama_model_free(model);
    llama_backend_free();
    return 0;
}
