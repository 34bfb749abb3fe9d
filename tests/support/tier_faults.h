// SPDX-License-Identifier: MIT
/// What compare_tiers.cpp must notice: functions that do what a tier's do, and one thing wrong.
#ifndef TRIT_TESTS_TIER_FAULTS_H
#define TRIT_TESTS_TIER_FAULTS_H

#include <cmath>
#include <cstring>
#include <string>

#include "trit.h"

namespace faults {

inline trit_tier right;  // the tier as it is

/// IEEE half to single precision.
inline float half_value(uint16_t half) {
    const int exponent = half >> 10 & 31;
    const double fraction = half & 1023;
    const double value = exponent == 31  ? (fraction == 0.0 ? HUGE_VAL : std::nan(""))
                         : exponent == 0 ? std::ldexp(fraction, -24)
                                         : std::ldexp(1024 + fraction, exponent - 25);
    return static_cast<float>((half & 0x8000) != 0 ? -value : value);
}

inline void wrong_panel(int64_t k, const uint8_t* panel, const int8_t* q, size_t q_row_bytes, int m,
                        int32_t* c) {
    right.panel[TRIT_PACKING_2_BITS](k, panel, q, q_row_bytes, m, c);
    c[m * TRIT_PANEL_ROWS - 1] += m == 34 && q[0] != 127;
}
inline void reads_behind(int64_t k, const uint8_t* panel, const int8_t* q, size_t q_row_bytes, int m,
                         int32_t* c) {
    right.panel[TRIT_PACKING_2_BITS](k, panel, q, q_row_bytes, m, c);
    const volatile int8_t* last = q + static_cast<size_t>(m - 1) * q_row_bytes;
    (void)last[k + TRIT_PANEL_OVERREAD];
}
inline void writes_in_front(int64_t k, const uint8_t* w, size_t w_row_bytes, int n, const int8_t* q,
                            size_t q_row_bytes, int m, int32_t* c, size_t c_stride) {
    right.i2_s(k, w, w_row_bytes, n, q, q_row_bytes, m, c, c_stride);
    c[-1] = 0;
}
inline void writes_between(int64_t k, const uint8_t* w, size_t w_row_bytes, int n, const int8_t* q,
                           size_t q_row_bytes, int m, int32_t* c, size_t c_stride) {
    right.i2_s(k, w, w_row_bytes, n, q, q_row_bytes, m, c, c_stride);
    c[static_cast<size_t>(m - 1) * c_stride - (m > 1)] = 0;
}
inline void fused(const int32_t* c, int32_t act_sum, float act_step, const uint16_t* w_scale, float* acc) {
    for (int i = 0; i < TRIT_PANEL_ROWS; ++i) {
        acc[i] = std::fma(static_cast<float>(c[i] - act_sum) * act_step, half_value(w_scale[i]), acc[i]);
    }
}
inline void rounds_away(int64_t k, const float* x, int8_t* q, float* scale, int32_t* sum) {
    right.quantize(k, x, q, scale, sum);
    *sum = 0;
    for (int64_t i = 0; i < k && *scale > 0; ++i) {
        q[i] = static_cast<int8_t>(std::round(x[i] * *scale));
        *sum += q[i];
    }
}

/// Puts a fault into a copy of the tier; false if there is no such fault.
inline bool plant(const std::string& fault, trit_tier& tested) {
    trit_panel_fn& panel = tested.panel[TRIT_PACKING_2_BITS];
    panel = fault == "wrong_panel" ? wrong_panel : fault == "reads_behind" ? reads_behind : panel;
    tested.i2_s = fault == "writes_in_front"  ? writes_in_front
                  : fault == "writes_between" ? writes_between
                                              : tested.i2_s;
    tested.accumulate = fault == "fused" ? fused : tested.accumulate;
    tested.quantize = fault == "rounds_away" ? rounds_away : tested.quantize;
    return std::memcmp(&tested, &right, sizeof(tested)) != 0;
}

}  // namespace faults

#endif  // TRIT_TESTS_TIER_FAULTS_H
