// SPDX-License-Identifier: MIT
/// How many threads a graph is given. On a machine that others keep busy, threads that meet at some hundred
/// barriers a token wait for the one that does not run, and fewer threads, even one, are faster. Which number
/// is, is measured.
#ifndef TRIT_GGML_THREAD_COUNT_H
#define TRIT_GGML_THREAD_COUNT_H

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace trit {

/// The choice for graphs of one kind, which take like times: those of a model with one number of tokens.
/// Times are in seconds. It changes only while the caller sleeps at barriers, or has given up threads before
/// that.
class ThreadCount {
 public:
    /// Threads of the next graph, of `most`.
    int next(int most) {
        if (most != most_) {
            *this = {};
            most_ = threads_ = tried_ = most;
        }
        return tried_;
    }

    /// The last graph took from `start` to `end`; `slept` of it the caller slept at barriers.
    void done(double start, double end, double slept) {
        if (graphs_ == 0) {
            start_ = start;
        }
        ++graphs_;
        busy_ += end - start;
        slept_ += slept;
        if (end - start_ < kWindow) {
            return;
        }
        const double mean = busy_ / graphs_;
        const double share = slept_ / busy_;
        graphs_ = 0;
        busy_ = slept_ = 0.0;
        if (tried_ != threads_) {
            judge(mean, end);
        } else {
            consider(mean, share, end);
        }
    }

 private:
    static constexpr double kWindow = 0.02;
    static constexpr double kFirstPause = 0.1;
    static constexpr double kLongestPause = 3.2;
    /// A trial has to win by more than what noise gives.
    static constexpr double kGain = 0.95;

    /// Trials in one direction. Each that loses halves the next step and doubles the pause.
    struct Direction {
        int lost = 0;
        double pause = kFirstPause;
        double next = 0.0;  ///< time of the next trial

        int step(int gap) const { return std::max(1, gap >> std::min(lost, 30)); }
        void ended(bool won, double now) {
            lost = won ? 0 : lost + 1;
            pause = won ? kFirstPause : std::min(pause * 2.0, kLongestPause);
            next = now + pause;
        }
    };

    void consider(double mean, double share, double now) {
        // Threads that never wait, and do as much.
        const int awake = std::max(1, static_cast<int>(std::ceil(threads_ * (1.0 - share))));
        if (awake < threads_ && now >= less_.next) {
            tried_ = threads_ - less_.step(threads_ - awake);
        } else if (threads_ < most_ && now >= more_.next) {
            tried_ = threads_ + more_.step(most_ - threads_);
        }
        before_ = mean;
    }

    void judge(double mean, double now) {
        const bool less = tried_ < threads_;
        const bool won = mean < before_ * kGain;
        (less ? less_ : more_).ended(won, now);
        if (won && less) {  // more threads have just been slow
            more_.next = std::max(more_.next, now + more_.pause);
        }
        if (won) {
            threads_ = tried_;
        } else {
            tried_ = threads_;
        }
    }

    int most_ = 0;
    int threads_ = 0;  ///< the best that is known
    int tried_ = 0;    ///< what runs now
    int64_t graphs_ = 0;
    double start_ = 0.0;
    double busy_ = 0.0;
    double slept_ = 0.0;
    double before_ = 0.0;  ///< mean time of a graph before the trial
    Direction less_, more_;
};

}  // namespace trit

#endif  // TRIT_GGML_THREAD_COUNT_H
