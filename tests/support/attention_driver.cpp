// SPDX-License-Identifier: MIT
// A chunk of positions for tokens in a tile and for each of them alone: prints how many floats were compared,
// or fails on the first that differs in a bit. Kernels that are chosen at run time are compared where the CPU
// has them.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "ggml/attention_rows.h"
#include "ggml/attention_tile.h"

using namespace trit;

namespace {

long compared = 0;

void same(const float* tile, const float* alone, int64_t n, const char* what, int rows, int64_t count) {
    if (std::memcmp(tile, alone, static_cast<size_t>(n) * sizeof(float)) != 0) {
        std::printf("%s differ: %d rows, %d positions\n", what, rows, static_cast<int>(count));
        std::exit(1);
    }
    compared += n;
}

template <int R>
void compare(const TileKernels& kernels, int64_t dk, int64_t dv, int64_t count, std::mt19937& random) {
    constexpr int kTokens = kTileRows / R;
    constexpr float kScale = 0.3f;
    std::normal_distribution<float> normal;
    std::vector<ggml_fp16_t> keys(count * dk);
    std::vector<ggml_fp16_t> values(count * dv);
    // Halves of any size from 2^-5 to 2^1, as bits.
    const auto half = [&] {
        return static_cast<ggml_fp16_t>((random() & 0x83FF) | (10 + random() % 6) << 10);
    };
    for (auto* cache : {&keys, &values}) {
        for (ggml_fp16_t& x : *cache) {
            x = half();
        }
    }
    std::vector<float> q(kTileRows * dk);
    for (float& x : q) {
        x = normal(random);
    }
    // The first token sees less than the others.
    std::vector<int64_t> counts(kTokens, count);
    counts[0] = (count + 1) / 2;
    std::vector<int32_t> listed(count);
    for (int64_t p = 0; p < count; ++p) {
        listed[p] = static_cast<int32_t>(count - 1 - p);
    }
    const Cache key_cache{reinterpret_cast<const char*>(keys.data()), dk * sizeof(ggml_fp16_t)};
    const Cache value_cache{reinterpret_cast<const char*>(values.data()), dv * sizeof(ggml_fp16_t)};

    std::vector<float> tile_q(kTileRows * dk);
    for (int row = 0; row < kTokens * R; ++row) {
        lay_out_query(q.data() + row * dk, kScale, dk, lane_order(R), row, tile_q.data());
    }
    std::vector<float> converted(count * std::max(dk, dv));
    std::vector<float> weights(count * kTileRows);
    convert_keys(key_cache, listed.data(), count, dk, converted.data());
    kernels.scores(tile_q.data(), converted.data(), count, dk, lane_order(R), weights.data());
    for (int64_t p = counts[0]; p < count; ++p) {
        std::fill_n(weights.data() + p * kTileRows, R, -INFINITY);
    }
    float largest[kTileRows];
    float sum[kTileRows];
    tile_soften<R>(weights.data(), count, largest, sum);

    const std::vector<float> bias(count, 0.0f);
    std::vector<float> alone_q(R * dk);
    std::vector<float> alone_weights(count * kMaxRows + Floats::kCount);
    std::vector<float> partial(R * (2 + dv));
    const Strips strips(dv, R, kernels);
    convert_values(value_cache, listed.data(), count, dv, strips, converted.data());
    for (int t = 0; t < kTokens; ++t) {
        for (int64_t i = 0; i < R * dk; ++i) {
            alone_q[i] = q[t * R * dk + i] * kScale;
        }
        float* out[R];
        for (int r = 0; r < R; ++r) {
            out[r] = partial.data() + r * (2 + dv);
        }
        attend_chunk<R>({dk, dv, key_cache, value_cache, alone_q.data(), alone_weights.data()}, listed.data(),
                        bias.data(), counts[t], out);
        float a[R];
        float b[R];
        std::vector<float> whole(R * dv);
        for (float& x : whole) {
            x = normal(random);
        }
        std::vector<float> wanted = whole;
        std::vector<float> fresh(R * dv);
        for (int r = 0; r < R; ++r) {
            a[r] = normal(random);
            b[r] = normal(random);
            for (int64_t d = 0; d < dv; d += Floats::kCount) {
                float* at = wanted.data() + r * dv + d;
                (Floats::load(at) * Floats::set(a[r]))
                    .fma(Floats::load(out[r] + 2 + d), Floats::set(b[r]))
                    .store(at);
            }
        }
        for (int64_t s = 0; s < strips.count; ++s) {
            const int64_t column = strips.first(s) * strips.lanes;
            const float* strip = converted.data() + column * count;
            const float* from = weights.data() + t * R;
            kernels.strip[R - 1](strips.width(s), strip, from, counts[t], a, b, whole.data() + column, dv);
            kernels.strip[R - 1](strips.width(s), strip, from, counts[t], nullptr, nullptr,
                                 fresh.data() + column, dv);
        }
        for (int r = 0; r < R; ++r) {
            same(largest + t * R + r, out[r], 1, "largest scores", R, count);
            same(sum + t * R + r, out[r] + 1, 1, "sums", R, count);
            same(fresh.data() + r * dv, out[r] + 2, dv, "values", R, count);
        }
        same(whole.data(), wanted.data(), R * dv, "values with those of earlier chunks", R, count);
    }
}

void compare_all(const TileKernels& kernels, int seed) {
    std::mt19937 random(static_cast<unsigned>(seed));
    for (const int64_t count : {1, 2, 5, 6, 7, 12, 13, 31, 64, 192}) {
        for (const int64_t width : {16, 64, 80, 128}) {
            compare<1>(kernels, width, 208 - width, count, random);
            compare<2>(kernels, width, width, count, random);
            compare<3>(kernels, width, 64, count, random);
            compare<4>(kernels, width, width, count, random);
        }
    }
}

}  // namespace

int main(int, char** argv) {
    compare_all(as_compiled::kTiles, std::atoi(argv[1]));
#ifdef TRIT_HAS_WIDE_FLOATS
    if (__builtin_cpu_supports("avx512f")) {
        compare_all(avx512::kTiles, std::atoi(argv[1]));
    }
#endif
    std::printf("%ld\n", compared);
}
