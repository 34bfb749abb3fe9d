// SPDX-License-Identifier: MIT
#include "kernels/cpu_identity.h"

#include <algorithm>
#include <cstring>
#include <fstream>

#include "kernels/tier.h"

#if defined(TRIT_ARM64) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace trit {
namespace {

#if defined(TRIT_X86)
/// AMD's CPUID Specification, function 1; Intel SDM vol. 2A, CPUID, leaf 1.
CpuCore core_of_x86() {
    unsigned r[4] = {0, 0, 0, 0};
    trit_x86_cpuid(0, 0, r);
    char vendor[13] = "";
    const unsigned text[3] = {r[1], r[3], r[2]};
    std::memcpy(vendor, text, sizeof(text));
    trit_x86_cpuid(1, 0, r);
    unsigned family = r[0] >> 8 & 0xF;
    unsigned model = r[0] >> 4 & 0xF;
    if (family == 6 || family == 15) {
        model |= r[0] >> 12 & 0xF0;
    }
    if (family == 15) {
        family += r[0] >> 20 & 0xFF;
    }
    return {{"vendor", vendor}, {"family", std::to_string(family)}, {"model", std::to_string(model)}};
}
#elif defined(TRIT_ARM64) && defined(__linux__)
/// "CPU part\t: 0xd0c" -> "0xd0c", of lines that begin so.
bool value_of(const std::string& line, const char* name, std::string* value) {
    const size_t colon = line.find(": ");
    if (line.compare(0, std::strlen(name), name) != 0 || colon == std::string::npos) {
        return false;
    }
    *value = line.substr(colon + 2);
    return true;
}

std::vector<CpuCore> cores_of_arm() {
    std::vector<CpuCore> cores;
    std::ifstream stream("/proc/cpuinfo");
    std::string implementer;
    std::string part;
    for (std::string line; std::getline(stream, line);) {
        value_of(line, "CPU implementer", &implementer);
        if (value_of(line, "CPU part", &part)) {
            const CpuCore core{{"implementer", implementer}, {"part", part}};
            if (std::find(cores.begin(), cores.end(), core) == cores.end()) {
                cores.push_back(core);
            }
        }
    }
    return cores;
}
#elif defined(TRIT_ARM64) && defined(__APPLE__)
CpuCore core_of_apple() {
    char name[128] = "";
    size_t bytes = sizeof(name) - 1;
    const bool known = sysctlbyname("machdep.cpu.brand_string", name, &bytes, nullptr, 0) == 0;
    return known ? CpuCore{{"name", name}} : CpuCore{};
}
#endif

}  // namespace

std::vector<CpuCore> cpu_cores() {
    std::vector<CpuCore> cores;
#if defined(TRIT_X86)
    cores.push_back(core_of_x86());
#elif defined(TRIT_ARM64) && defined(__linux__)
    cores = cores_of_arm();
#elif defined(TRIT_ARM64) && defined(__APPLE__)
    cores.push_back(core_of_apple());
#endif
    if (cores.empty()) {
        cores.emplace_back();
    }
    return cores;
}

}  // namespace trit
