// SPDX-License-Identifier: MIT
#ifndef TRIT_GGML_TUNING_FILE_H
#define TRIT_GGML_TUNING_FILE_H

namespace trit {

/// Reads what trit/tune found: the file that TRIT_TUNING names, else tuning.json in the folder that the
/// engine was built in. Behind it, where there is none, and for TRIT_TUNING=preset, the preset for the tier
/// is used (preset_kernels/tuning); for TRIT_TUNING=off nothing. A file that cannot be used is said in one
/// line.
void load_tuning();

}  // namespace trit

#endif  // TRIT_GGML_TUNING_FILE_H
