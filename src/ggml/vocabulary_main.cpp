// SPDX-License-Identifier: MIT
/// `trit-vocabulary FILE`: what the engine makes of texts and conversations with the vocabulary and the chat
/// template of a GGUF file, which needs no weights. Orders come on standard input, one JSON value a line;
/// every answer is one JSON value a line.
///
///     "text"                    token ids: [1, 2]; tokens that the text names are read as such
///     ["text"]                  the same with what the vocabulary puts in front and behind
///     {"messages": [{"role": "user", "content": "Hi"}]}
///                               the prompt: {"prompt": "..."}, or why there is none: {"error": "..."}
///
/// The first line says what there is: "tokens", how many; "bos" and "eos", their ids, -1 without one;
/// "stops", the ids that end a generation. A file that the engine does not load is one sentence and exit
/// code 1.
#include <cstdio>
#include <exception>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "chat.h"
#include "common.h"
#include "jinja/utils.h"
#include "llama.h"

namespace {

using json = nlohmann::ordered_json;
constexpr int64_t kTemplateBytes = 256 << 20;

using Model = std::unique_ptr<llama_model, decltype(&llama_model_free)>;

void print(const json& value) {
    // What a template writes need not be UTF-8.
    std::cout << value.dump(-1, ' ', true, json::error_handler_t::replace) << '\n';
}

/// The engine's log without what it says of a good file.
void only_errors(ggml_log_level level, const char* text, void*) {
    if (level == GGML_LOG_LEVEL_ERROR) {
        std::fputs(text, stderr);
    }
}

json introduction(const llama_vocab* vocab) {
    const int count = llama_vocab_n_tokens(vocab);
    std::vector<llama_token> stops;
    for (llama_token id = 0; id < count; ++id) {
        if (llama_vocab_is_eog(vocab, id)) {
            stops.push_back(id);
        }
    }
    return {{"tokens", count},
            {"bos", llama_vocab_bos(vocab)},
            {"eos", llama_vocab_eos(vocab)},
            {"stops", stops}};
}

/// The chat template of the file, tried once: one that takes long to fail does so for every conversation.
struct Templates {
    common_chat_templates_ptr value;
    std::string error;

    explicit Templates(const llama_model* model) {
        // Dozens of renderings find out what a template can. A real one makes some megabytes in all of them.
        jinja::limits::budget() = kTemplateBytes;
        try {
            value = common_chat_templates_init(model, "");
        } catch (const std::exception& failure) {
            error = failure.what();
        }
    }
};

json rendered(const llama_model* model, const json& messages) {
    static const Templates templates(model);
    if (!templates.value) {
        return {{"error", templates.error}};
    }
    common_chat_templates_inputs inputs;
    for (const json& message : messages) {
        common_chat_msg next;
        next.role = message.at("role").get<std::string>();
        next.content = message.at("content").get<std::string>();
        inputs.messages.push_back(next);
    }
    return {{"prompt", common_chat_templates_apply(templates.value.get(), inputs).prompt}};
}

json answer(const llama_model* model, const json& order) {
    const llama_vocab* vocab = llama_model_get_vocab(model);
    if (order.is_object()) {
        std::cout.flush();  // a template may end the program, or never end
        try {
            return rendered(model, order.at("messages"));
        } catch (const std::exception& error) {
            return {{"error", error.what()}};
        }
    }
    const bool special = order.is_array();
    return common_tokenize(vocab, (special ? order.at(0) : order).get<std::string>(), special, true);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "error: trit-vocabulary takes one GGUF file\n");
        return 2;
    }
    llama_log_set(only_errors, nullptr);
    llama_backend_init();
    llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    const Model model(llama_model_load_from_file(argv[1], params), llama_model_free);
    if (!model) {
        return 1;
    }
    print(introduction(llama_model_get_vocab(model.get())));
    std::string line;
    while (std::getline(std::cin, line)) {
        try {
            print(answer(model.get(), json::parse(line)));
        } catch (const std::exception& error) {
            std::fprintf(stderr, "error: trit-vocabulary: %s\n", error.what());
            return 1;
        }
    }
    return 0;
}
