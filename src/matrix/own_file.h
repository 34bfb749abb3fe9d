// SPDX-License-Identifier: MIT
/// Which file this code runs from: apart, because <windows.h> makes macros of common words (near, far, min).
#ifndef TRIT_OWN_FILE_H
#define TRIT_OWN_FILE_H

#include <string>

namespace trit {

/// The program or library that holds this code, which may have been moved since it was built; UTF-8, and
/// empty if the system does not tell.
std::string own_file();

}  // namespace trit

#endif  // TRIT_OWN_FILE_H
