// SPDX-License-Identifier: MIT
/// A sentence on standard error when the process meets its memory limit, RLIMIT_DATA (--memory-limit): what
/// follows is an exception or an abort somewhere in the engine, which says nothing of a limit.
#ifdef __linux__
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>

namespace {

std::terminate_handler previous_terminate = nullptr;

rlim_t limit() {
    rlimit found{};
    return getrlimit(RLIMIT_DATA, &found) == 0 ? found.rlim_cur : RLIM_INFINITY;
}

/// Bytes that count for the limit now; 0 if the system does not tell. Nothing is allocated: there is no
/// memory.
rlim_t used() {
    char text[4096];
    const int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    const ssize_t size = file < 0 ? 0 : read(file, text, sizeof(text) - 1);
    if (file >= 0) {
        close(file);
    }
    text[size > 0 ? size : 0] = '\0';
    const char* line = std::strstr(text, "VmData:");
    return line == nullptr ? 0 : std::strtoull(line + std::strlen("VmData:"), nullptr, 10) << 10;
}

void say() {
    char text[160];
    const int size =
        std::snprintf(text, sizeof(text),
                      "error: the engine has met its memory limit of %llu MiB; give a smaller -c or a larger "
                      "--memory-limit\n",
                      static_cast<unsigned long long>(limit() >> 20));
    if (size > 0 && write(STDERR_FILENO, text, static_cast<size_t>(size)) < 0) {
        return;  // there is nobody else to tell
    }
}

[[noreturn]] void no_memory() {
    say();
    throw std::bad_alloc();  // what operator new does without a handler
}

[[noreturn]] void end() {
    // A thread that cannot start ends here: its stack is the last 8 MiB.
    constexpr rlim_t kStack = 16 << 20;
    if (used() + kStack > limit()) {
        say();
    }
    if (previous_terminate != nullptr) {
        previous_terminate();
    }
    std::abort();
}

const bool installed = [] {
    if (limit() == RLIM_INFINITY) {
        return false;
    }
    std::set_new_handler(no_memory);
    previous_terminate = std::set_terminate(end);
    return true;
}();

}  // namespace
#endif
