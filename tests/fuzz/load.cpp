// SPDX-License-Identifier: MIT
/// load < LIST: loads each model file that a line of LIST names, takes a text apart and computes its first
/// token, in a process of its own. Prints a line per file: how it ended (loaded, refused, exit N, signal N,
/// slow) and the telling line of its messages. Linked with an engine that was compiled with
/// -fsanitize=address; a report of it ends the process with code 99.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <string>

#include "llama.h"

namespace {

constexpr unsigned kSeconds = 30;
constexpr int kRefused = 3;

/// Alternates between mapped and read files, and between packed and unpacked weights.
int load(const std::string& path, int number) {
    llama_model_params params = llama_model_default_params();
    params.load_mode = (number & 1) == 0 ? LLAMA_LOAD_MODE_MMAP : LLAMA_LOAD_MODE_NONE;
    params.use_extra_bufts = (number & 2) == 0;
    llama_model* model = llama_model_load_from_file(path.c_str(), params);
    if (model == nullptr) {
        return kRefused;
    }
    llama_context_params context_params = llama_context_default_params();
    context_params.n_ctx = 32;
    context_params.n_batch = context_params.n_ubatch = 8;
    context_params.n_threads = context_params.n_threads_batch = 1;
    char architecture[64] = "";
    llama_model_meta_val_str(model, "general.architecture", architecture, sizeof(architecture));
    context_params.embeddings = std::strstr(architecture, "embedding") != nullptr;
    llama_context* context = llama_init_from_model(model, context_params);
    if (context == nullptr) {
        return kRefused;
    }
    const std::string text = "Where is Mary?\n\x01 \xc3\xa9\xf0\x9f\x98\x80";
    llama_token tokens[256];
    const int32_t count = llama_tokenize(llama_model_get_vocab(model), text.data(),
                                         static_cast<int32_t>(text.size()), tokens, 256, true, true);
    llama_token token = count > 0 ? tokens[0] : 1;
    const int code = llama_decode(context, llama_batch_get_one(&token, 1));
    llama_free(context);
    llama_model_free(model);
    return code == 0 ? 0 : kRefused;
}

std::string how(int status) {
    if (WIFSIGNALED(status)) {
        return WTERMSIG(status) == SIGALRM ? "slow" : "signal " + std::to_string(WTERMSIG(status));
    }
    const int code = WEXITSTATUS(status);
    return code == 0 ? "loaded" : code == kRefused ? "refused" : "exit " + std::to_string(code);
}

/// The last line that says why; of a sanitizer's report also the innermost frames.
std::string telling(const std::string& log) {
    std::ifstream file(log);
    std::string line, found, frames;
    while (std::getline(file, line)) {
        for (const char* word : {"rror", "GGML_ASSERT", "terminate", "what()", ".cpp:", ".c:", "SUMMARY"}) {
            if (line.find(word) != std::string::npos) {
                found = line;
            }
        }
        if (frames.size() < 400 && line.find("    #") == 0) {
            frames += " " + line.substr(line.find(" in ") == std::string::npos ? 0 : line.find(" in "));
        }
    }
    return found.substr(0, 300) + frames;
}

}  // namespace

int main() {
    llama_backend_init();
    const std::string log = "/tmp/trit-fuzz-load." + std::to_string(getpid());
    std::string path;
    for (int number = 0; std::getline(std::cin, path); ++number) {
        const pid_t child = fork();
        if (child == 0) {
            const int file = open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
            dup2(file, 2);
            alarm(kSeconds);
            _exit(load(path, number));
        }
        int status = 0;
        waitpid(child, &status, 0);
        std::printf("%s\t%s\t%s\n", path.c_str(), how(status).c_str(), telling(log).c_str());
        std::fflush(stdout);
    }
    unlink(log.c_str());
    return 0;
}
