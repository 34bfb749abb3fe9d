// SPDX-License-Identifier: MIT
/// The one function that the library of a bundle gives away (TRIT_BUNDLE in CMakeLists.txt).
#ifndef TRIT_TOOLS_BUNDLE_H
#define TRIT_TOOLS_BUNDLE_H

#include "trit.h"

#ifdef __cplusplus
extern "C" {
#endif

/// Runs the program `name` with its arguments; its exit code, or 127 if the library has no such program.
TRIT_API int trit_program(const char* name, int argc, char** argv);

#ifdef __cplusplus
}
#endif

#endif
