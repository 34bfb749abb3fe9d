// SPDX-License-Identifier: MIT
#ifndef TRIT_TUNING_FILE_H
#define TRIT_TUNING_FILE_H

#include <vector>

#include "kernels/cpu_identity.h"

namespace trit {

/// Reads what trit/tune found: the file that TRIT_TUNING names, else tuning.json beside the folder of
/// the engine's programs. Behind it, where there is none, and for TRIT_TUNING=preset, the tier's preset that
/// is nearest to this CPU is used (preset_kernels/tuning); for TRIT_TUNING=off nothing. A file that cannot be
/// used is said in one line.
void load_tuning(const std::vector<CpuCore>& cores = cpu_cores());

}  // namespace trit

#endif  // TRIT_TUNING_FILE_H
