// SPDX-License-Identifier: MIT
#ifndef TRIT_GGML_TUNING_H
#define TRIT_GGML_TUNING_H

namespace trit {

/// Reads what utils/tune found: the file that TRIT_TUNING names ("off": none), else tuning.json in the folder
/// that the engine was built in, if it is there. What cannot be used is said in one line, and the defaults
/// stay.
void load_tuning();

}  // namespace trit

#endif  // TRIT_GGML_TUNING_H
