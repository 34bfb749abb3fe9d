/* SPDX-License-Identifier: MIT */
/* A program of a bundle: its name is TRIT_PROGRAM, all of it is in the library. C, since it needs no C++
 * library. */
#include "tools/bundle.h"

int main(int argc, char** argv) { return trit_program(TRIT_PROGRAM, argc, argv); }
