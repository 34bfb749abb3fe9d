// SPDX-License-Identifier: MIT
#include "tools/kernel_library.h"

#if defined(_WIN32)
#define NOMINMAX
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include "tools/measure.h"
#include "trit.h"

namespace trit {
namespace {

constexpr char kSymbol[] = "trit_variants";

#if defined(_WIN32)
const void* find(const std::string& path, std::string* fault) {
    HMODULE library = LoadLibraryA(path.c_str());
    const void* found =
        library == nullptr ? nullptr : reinterpret_cast<const void*>(GetProcAddress(library, kSymbol));
    *fault = "system error " + std::to_string(GetLastError());
    return found;
}
#else
const void* find(const std::string& path, std::string* fault) {
    // All symbols at once: a missing one is an error here, not a crash in the middle of a measurement.
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    const void* found = library == nullptr ? nullptr : dlsym(library, kSymbol);
    if (found == nullptr) {
        const char* text = dlerror();
        *fault = text == nullptr ? "no symbol" : text;
    }
    return found;
}
#endif

}  // namespace

void add_kernels(const std::string& path) {
    std::string fault;
    const auto* kernels = static_cast<const trit_lookup_kernel* const*>(find(path, &fault));
    if (kernels == nullptr) {
        usage_error("--kernels " + path + ": expected a library with " + kSymbol + " (" + fault + ")");
    }
    for (; *kernels != nullptr; ++kernels) {
        trit_lookup_add(*kernels);
    }
}

}  // namespace trit
