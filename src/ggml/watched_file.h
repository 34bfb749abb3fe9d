// SPDX-License-Identifier: MIT
/// Files that are mapped while a server runs: one that is written to in the meantime would answer nonsense.
#pragma once

#include <memory>
#include <string>

#include "ggml.h"

namespace trit {

/// Look after an open file until what is returned is gone; null where it cannot be.
GGML_API std::shared_ptr<void> watch_file(int descriptor);

/// A sentence about a file that was written to since, or "". A new file under the old name is another one.
GGML_API std::string changed_file();

}  // namespace trit
