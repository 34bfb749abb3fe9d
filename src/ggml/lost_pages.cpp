// SPDX-License-Identifier: MIT
/// A sentence on standard error when a page of a mapped model is gone: its file was cut short while in use,
/// or cannot be read any more. What follows otherwise is SIGBUS, without a word.
#ifdef __linux__
#include <signal.h>
#include <unistd.h>

namespace {

void end(int number, siginfo_t* info, void*) {
    if (info->si_code == BUS_ADRERR) {
        static const char kText[] =
            "error: the model's file was cut short or cannot be read any more, while it was in use; put a "
            "whole "
            "file there and start again\n";
        _exit(write(STDERR_FILENO, kText, sizeof(kText) - 1) < 0 ? 1 : 2);
    }
    signal(number, SIG_DFL);  // any other fault happens again, and ends as it would have
}

const bool installed = [] {
    struct sigaction action{};
    if (sigaction(SIGBUS, nullptr, &action) != 0 || action.sa_handler != SIG_DFL) {
        return false;  // a sanitizer's, or whose library we are in
    }
    action.sa_sigaction = end;
    action.sa_flags = SA_SIGINFO;
    return sigaction(SIGBUS, &action, nullptr) == 0;
}();

}  // namespace
#endif
