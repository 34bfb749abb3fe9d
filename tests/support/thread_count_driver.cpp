// SPDX-License-Identifier: MIT
/// ThreadCount on machines that are made up. Arguments: most threads, and how far a graph's time strays (0.1:
/// 10 %). Standard input: phases, each its seconds, then for 1, 2, ... threads a graph's time in seconds and
/// the share of it that the caller sleeps. Prints a line a phase: threads at its end, and its graphs' time
/// over that on the best number.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "ggml/thread_count.h"

namespace {

struct Point {
    double time, share;
};

/// -1 to 1.
double noise() {
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;  // Numerical Recipes' generator
    return static_cast<double>(state >> 8) / 8388608.0 - 1.0;
}

}  // namespace

int main(int, char** argv) {
    const int most = std::atoi(argv[1]);
    const double spread = std::atof(argv[2]);
    trit::ThreadCount count;
    double now = 1000.0;
    double seconds = 0.0;
    while (std::scanf("%lf", &seconds) == 1) {
        std::vector<Point> points(static_cast<size_t>(most));
        for (Point& point : points) {
            if (std::scanf("%lf %lf", &point.time, &point.share) != 2) {
                return 1;
            }
        }
        const auto faster = [](const Point& a, const Point& b) { return a.time < b.time; };
        const double best = std::min_element(points.begin(), points.end(), faster)->time;
        const double end = now + seconds;
        const double start = now;
        int graphs = 0;
        int threads = 0;
        while (now < end) {
            threads = count.next(most);
            const Point& point = points[static_cast<size_t>(threads - 1)];
            const double time = point.time * (1.0 + spread * noise());
            count.done(now, now + time, time * point.share);
            now += time;
            ++graphs;
        }
        std::printf("%d %.3f\n", threads, (now - start) / (graphs * best));
    }
    return 0;
}
