// SPDX-License-Identifier: MIT
#include "matrix/own_file.h"

#ifdef _WIN32
#define NOMINMAX
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace trit {

std::string own_file() {
    const auto* here = reinterpret_cast<const char*>(&own_file);
#ifdef _WIN32
    constexpr DWORD kFlags =
        GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
    HMODULE module = nullptr;
    static char name[1 << 15];  // the longest path that Windows has
    if (GetModuleHandleExA(kFlags, here, &module) == 0 ||
        GetModuleFileNameA(module, name, sizeof(name)) == 0) {
        return "";
    }
    return name;
#else
    Dl_info info;
    return dladdr(here, &info) == 0 || info.dli_fname == nullptr ? "" : info.dli_fname;
#endif
}

}  // namespace trit
