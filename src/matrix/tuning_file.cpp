// SPDX-License-Identifier: MIT
#include "matrix/tuning_file.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu_identity.h"
#include "kernels/packing_names.h"
#include "kernels/registry.h"
#include "matrix/lookup_choice.h"
#include "matrix/own_file.h"
#include "matrix/tuning.h"

namespace trit {
namespace {

using Json = nlohmann::json;

constexpr int kFormat = 2;  // trit/engine/tuning_file.py

/// preset_kernels/tuning/*.json: of each tier one for any CPU, and those of some CPUs.
constexpr const char* kPresets[] = {
#include "trit_presets.inc"
    nullptr};

/// A member that is a whole number from `least` to `most`; else 0, and *ok becomes false.
int64_t number(const Json& object, const char* name, int64_t least, int64_t most, bool* ok) {
    const auto found = object.find(name);
    if (found == object.end() || !found->is_number_integer() || *found < least || *found > most) {
        *ok = false;
        return 0;
    }
    return found->get<int64_t>();
}

const trit_lookup_kernel* kernel_named(const std::string& name, trit_packing packing) {
    const trit_lookup_kernel* kernel = trit_lookup_by_name(name.c_str());
    const bool usable = kernel != nullptr && kernel->packing == packing && kernel->supported() &&
                        lookup_fault(kernel).empty();
    return usable ? kernel : nullptr;
}

/// TRIT_PACKING_COUNT for none of this name that works here.
trit_packing packing_named(const std::string& name) {
    for (int i = 0; i < TRIT_PACKING_COUNT; ++i) {
        const auto packing = static_cast<trit_packing>(i);
        if (is_ternary(packing) && name == packing_name(packing) &&
            is_readable(*trit_tier_chosen(), packing)) {
            return packing;
        }
    }
    return TRIT_PACKING_COUNT;
}

/// What is wrong with it, or an empty text.
std::string read_packing(const Json& object, TunedShape* shape) {
    const auto name = object.find("packing");
    if (name == object.end() || !(name->is_null() || name->is_string())) {
        return "has a shape without packing";
    }
    shape->packing = name->is_null() ? TRIT_PACKING_COUNT : packing_named(name->get<std::string>());
    const bool known = name->is_null() || shape->packing != TRIT_PACKING_COUNT;
    return known ? "" : "names the packing " + name->get<std::string>() + ", which this build or CPU lacks";
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
    const std::string fault = read_packing(object, shape);
    if (!fault.empty() || name->is_null()) {
        return fault;
    }
    const auto text = name->get<std::string>();
    shape->lookup = LookupChoice::of(kernel_named(text, TRIT_PACKING_2_BITS));
    if (shape->lookup.kernel == nullptr) {
        return "names the kernel " + text + ", which this build or CPU lacks";
    }
    shape->lookup.panels = static_cast<int>(number(object, "panels", 1, shape->lookup.kernel->panels, &ok));
    shape->lookup.least_tokens =
        static_cast<int>(number(object, "least_tokens", 1, shape->lookup.kernel->tokens, &ok));
    return ok ? "" : "has panels or least_tokens that the kernel " + text + " does not take";
}

/// Kernels for few tokens of TL1 and TL2, by the packing's name: those that are not named are as without
/// tuning.
std::string read_tables(const Json& file, std::vector<const trit_lookup_kernel*>* tables) {
    const auto found = file.find("tables");
    if (found == file.end()) {
        return "";
    }
    for (const auto& [packing, name] : found->items()) {
        const std::string text = name.is_string() ? name.get<std::string>() : "";
        const trit_lookup_kernel* kernel = kernel_named(text, packing_named(packing));
        if (kernel == nullptr) {
            return "names the kernel " + text + " for " + packing + ", which this build or CPU lacks";
        }
        tables->push_back(kernel);
    }
    return "";
}

/// Tokens of one call of the tier's kernels, by the packing's name.
std::string read_at_once(const Json& file, std::vector<std::pair<trit_packing, int>>* at_once) {
    const auto found = file.find("at_once");
    if (found == file.end()) {
        return "";
    }
    bool ok = found->is_object();
    for (int i = 0; ok && i < TRIT_TIER_PACKINGS; ++i) {
        const auto packing = static_cast<trit_packing>(i);
        if (found->contains(packing_name(packing))) {
            const int64_t tokens = number(*found, packing_name(packing), 0, 1 << 16, &ok);
            at_once->emplace_back(packing, static_cast<int>(tokens));
        }
    }
    return ok ? "" : "has an at_once that is no number of tokens for each packing";
}

/// What is in a file.
struct Found {
    std::vector<TunedShape> shapes;
    std::vector<const trit_lookup_kernel*> tables;
    std::vector<std::pair<trit_packing, int>> at_once;
};

/// What is wrong with the file, or an empty text.
std::string read(const Json& file, Found* all) {
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
        all->shapes.push_back(shape);
    }
    const std::string fault = read_at_once(file, &all->at_once);
    return fault.empty() ? read_tables(file, &all->tables) : fault;
}

/// What is wrong with the file, or an empty text: then it is in use.
std::string use(const Json& file) {
    Found all;
    std::string fault = read(file, &all);
    if (fault.empty()) {
        add_tuning(std::move(all.shapes));
        for (const trit_lookup_kernel* kernel : all.tables) {
            trit_lookup_prefer(kernel);
        }
        for (const auto& [packing, tokens] : all.at_once) {
            set_tokens_at_once(packing, tokens);
        }
    }
    return fault;
}

/// Whether a core is one of those that an entry of "match" names: {"vendor": "AuthenticAMD", "family": 25}.
bool is_like(const CpuCore& core, const Json& entry) {
    for (const auto& [name, value] : entry.items()) {
        const auto found = core.find(name);
        const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
        if (found == core.end() || found->second != text) {
            return false;
        }
    }
    return entry.is_object();
}

/// How near a preset is to this CPU: members of the longest entry of its "match" that fits; an empty one fits
/// all. -1: it is for others.
int nearness(const Json& preset, const std::vector<CpuCore>& cores) {
    const auto match = preset.is_object() ? preset.find("match") : preset.end();
    int most = -1;
    if (match == preset.end() || !match->is_array()) {
        return most;
    }
    for (const Json& entry : *match) {
        for (const CpuCore& core : cores) {
            most = is_like(core, entry) ? std::max(most, static_cast<int>(entry.size())) : most;
        }
    }
    return most;
}

/// The nearest preset. One that names what this build lacks says nothing about this machine.
void use_preset(const std::vector<CpuCore>& cores) {
    std::vector<std::pair<int, Json>> presets;
    for (const char* text : kPresets) {
        Json preset = text != nullptr ? Json::parse(text, nullptr, false) : Json();
        const int near = nearness(preset, cores);
        if (near >= 0) {
            presets.emplace_back(near, std::move(preset));
        }
    }
    std::stable_sort(presets.begin(), presets.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    for (const auto& [near, preset] : presets) {
        if (use(preset).empty()) {
            return;
        }
    }
}

/// tuning.json in the folder around that of the program or library that holds this code (build/bin).
std::string own_tuning_file() {
    const std::filesystem::path file = own_file();
    return file.empty() ? "" : (file.parent_path().parent_path() / "tuning.json").string();
}

}  // namespace

void load_tuning(const std::vector<CpuCore>& cores) {
    const char* given = std::getenv("TRIT_TUNING");
    const bool is_given = given != nullptr && given[0] != '\0';
    const std::string name = is_given ? given : own_tuning_file();
    if (name == "off") {
        return;
    }
    // Also beside a file: it may have been made for another model.
    use_preset(cores);
    std::error_code error;
    // A folder opens as well as a file, and a device has no end.
    const bool is_file = std::filesystem::is_regular_file(name, error);
    if (name == "preset" || (!is_file && !is_given)) {
        return;
    }
    std::ifstream stream(is_file ? name : std::string());
    const std::string fault = stream ? use(Json::parse(stream, nullptr, false)) : "cannot be read";
    if (!fault.empty()) {
        // Not through the log: the tools turn it down while a model loads.
        std::fprintf(
            stderr,
            "warning: the tuning file %s %s; the presets are used (python3 -m trit tune makes it anew)\n",
            name.c_str(), fault.c_str());
    }
}

}  // namespace trit
