// SPDX-License-Identifier: MIT
#include "ggml_tuning.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tuning.h"

namespace trit {
namespace {

using Json = nlohmann::json;

constexpr int kFormat = 1;  // utils/tune/store.py

std::string file_name() {
    const char* given = std::getenv("TRIT_TUNING");
    return given != nullptr && given[0] != '\0' ? given : TRIT_TUNING_FILE;
}

/// A member that is a whole number from `least` to `most`; else 0, and *ok becomes false.
int64_t number(const Json& object, const char* name, int64_t least, int64_t most, bool* ok) {
    const auto found = object.find(name);
    if (found == object.end() || !found->is_number_integer() || *found < least || *found > most) {
        *ok = false;
        return 0;
    }
    return found->get<int64_t>();
}

const trit_lookup_kernel* kernel_named(const std::string& name) {
    const trit_lookup_kernel* kernel = trit_lookup_by_name(name.c_str());
    char message[256] = "";
    const bool usable = kernel != nullptr && kernel->packing == TRIT_PACKING_2_BITS && kernel->supported() &&
                        trit_lookup_selftest(kernel, message, sizeof(message));
    return usable ? kernel : nullptr;
}

/// What is wrong with it, or an empty text.
std::string read_shape(const Json& object, TunedShape* shape) {
    bool ok = object.is_object();
    if (ok) {
        shape->n = number(object, "n", 1, int64_t{1} << 32, &ok);
        shape->k = number(object, "k", 1, TRIT_PANEL_MAX_K, &ok);
        shape->threads = static_cast<int>(number(object, "threads", 1, 4096, &ok));
    }
    const auto name = ok ? object.find("lookup") : object.end();
    if (!ok || name == object.end() || !(name->is_null() || name->is_string())) {
        return "has a shape without n, k, threads or lookup";
    }
    if (name->is_null()) {
        return "";
    }
    const auto text = name->get<std::string>();
    shape->lookup = LookupChoice::of(kernel_named(text));
    if (shape->lookup.kernel == nullptr) {
        return "names the kernel " + text + ", which this build or CPU lacks";
    }
    shape->lookup.panels = static_cast<int>(number(object, "panels", 1, shape->lookup.kernel->panels, &ok));
    shape->lookup.least_tokens =
        static_cast<int>(number(object, "least_tokens", 1, shape->lookup.kernel->tokens, &ok));
    return ok ? "" : "has panels or least_tokens that the kernel " + text + " does not take";
}

/// What is wrong with the file, or an empty text.
std::string read(const Json& file, std::vector<TunedShape>* shapes) {
    bool ok = file.is_object();
    if (!ok || number(file, "format", kFormat, kFormat, &ok) != kFormat) {
        return "is not of format " + std::to_string(kFormat);
    }
    const auto tier = file.find("tier");
    if (tier == file.end() || *tier != trit_tier_chosen()->name) {
        return std::string("was made for another tier than ") + trit_tier_chosen()->name;
    }
    const auto list = file.find("shapes");
    if (list == file.end() || !list->is_array()) {
        return "has no shapes";
    }
    for (const Json& object : *list) {
        TunedShape shape{};
        const std::string fault = read_shape(object, &shape);
        if (!fault.empty()) {
            return fault;
        }
        shapes->push_back(shape);
    }
    return "";
}

}  // namespace

void load_tuning() {
    const std::string name = file_name();
    std::ifstream stream(name);
    if (name == "off" || (!stream && std::getenv("TRIT_TUNING") == nullptr)) {
        return;
    }
    std::vector<TunedShape> shapes;
    const std::string fault =
        stream ? read(Json::parse(stream, nullptr, false), &shapes) : std::string("cannot be read");
    if (!fault.empty()) {
        // Not through the log: the tools turn it down while a model loads.
        std::fprintf(
            stderr,
            "warning: the tuning file %s %s; the defaults are used (python3 -m utils.tune makes it anew)\n",
            name.c_str(), fault.c_str());
        return;
    }
    use_tuning(std::move(shapes));
}

}  // namespace trit
