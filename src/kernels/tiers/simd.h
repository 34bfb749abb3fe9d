// SPDX-License-Identifier: MIT
/// What every tier with vectors and every look-up kernel includes, in front of its target region.
#ifndef TRIT_SIMD_H
#define TRIT_SIMD_H

#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "kernels/tier.h"

#if defined(TRIT_X86)
#include <immintrin.h>
#elif defined(TRIT_ARM64)
#include <arm_neon.h>
#endif

#endif  // TRIT_SIMD_H
