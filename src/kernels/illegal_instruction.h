// SPDX-License-Identifier: MIT
/// Runs code that may hold an instruction which this CPU, or the virtual machine around it, does not execute
/// after all. (A machine that announces a feature and then raises SIGILL has been met in the field.)
#ifndef TRIT_ILLEGAL_INSTRUCTION_H
#define TRIT_ILLEGAL_INSTRUCTION_H

#if defined(_WIN32)
#define NOMINMAX
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <csetjmp>
#include <csignal>
#endif

namespace trit {

#if !defined(_WIN32)

/// While it lives, illegal instructions of this thread inside `run` end `run`, not the process.
class IllegalInstructionGuard {
 public:
    IllegalInstructionGuard() {
        struct sigaction action = {};
        action.sa_handler = handler;
        action.sa_flags = SA_NODEFER;  // so that jumping out of the handler leaves nothing blocked
        sigemptyset(&action.sa_mask);
        installed_ = sigaction(SIGILL, &action, &before_) == 0;
    }
    ~IllegalInstructionGuard() {
        if (installed_) {
            sigaction(SIGILL, &before_, nullptr);
        }
    }
    IllegalInstructionGuard(const IllegalInstructionGuard&) = delete;
    IllegalInstructionGuard& operator=(const IllegalInstructionGuard&) = delete;

    /// False if `work` met an illegal instruction. `work` must own nothing: it may be left in the middle.
    template <typename Work>
    bool run(const Work& work) {
        sigjmp_buf here;
        if (sigsetjmp(here, 0) != 0) {
            target() = nullptr;
            return false;
        }
        target() = &here;
        work();
        target() = nullptr;
        return true;
    }

 private:
    static sigjmp_buf*& target() {
        static thread_local sigjmp_buf* buffer = nullptr;
        return buffer;
    }

    static void handler(int signal) {
        if (target() != nullptr) {
            siglongjmp(*target(), 1);
        }
        // Not ours: the same instruction, met again, ends the process as it would have.
        std::signal(signal, SIG_DFL);
    }

    struct sigaction before_ = {};
    bool installed_ = false;
};

#else

class IllegalInstructionGuard {
 public:
    template <typename Work>
    bool run(const Work& work) {
#if defined(_MSC_VER) || defined(__clang__)
        __try {
            work();
        } __except (GetExceptionCode() == EXCEPTION_ILLEGAL_INSTRUCTION ? EXCEPTION_EXECUTE_HANDLER
                                                                        : EXCEPTION_CONTINUE_SEARCH) {
            return false;
        }
#else
        work();
#endif
        return true;
    }
};

#endif

}  // namespace trit

#endif  // TRIT_ILLEGAL_INSTRUCTION_H
