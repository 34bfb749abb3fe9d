// SPDX-License-Identifier: MIT
#include "ggml/rotation.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "ggml-backend.h"
#include "ggml.h"
#include "gguf.h"

namespace trit {
namespace {

constexpr const char* kPrefix = "prism.hadamard.";
constexpr int64_t kMostWidth = 1 << 24, kLeastBlock = 2, kMostBlock = 8192;

/// Reads the keys of a file; the first that is missing or of another kind is kept.
class Keys {
 public:
    explicit Keys(const gguf_context* file) : file_(file) {}

    std::string wrong;

    std::optional<int64_t> number(const std::string& key) {
        const int64_t id = find(key);
        if (id < 0) return std::nullopt;
        switch (gguf_get_kv_type(file_, id)) {
            case GGUF_TYPE_UINT32:
                return gguf_get_val_u32(file_, id);
            case GGUF_TYPE_INT32:
                return gguf_get_val_i32(file_, id);
            case GGUF_TYPE_BOOL:
                return gguf_get_val_bool(file_, id) ? 1 : 0;
            default:
                return complain<int64_t>(key + " is no 32-bit integer");
        }
    }

    std::string text(const std::string& key) {
        const int64_t id = find(key);
        if (id < 0) return "";
        if (gguf_get_kv_type(file_, id) == GGUF_TYPE_STRING) return gguf_get_val_str(file_, id);
        complain<int>(key + " is no string");
        return "";
    }

    std::vector<std::string> texts(const std::string& key) {
        std::vector<std::string> found;
        const int64_t id = array(key, {GGUF_TYPE_STRING});
        for (size_t i = 0; id >= 0 && i < gguf_get_arr_n(file_, id); i++)
            found.emplace_back(gguf_get_arr_str(file_, id, i));
        return found;
    }

    template <typename T>
    std::vector<T> numbers(const std::string& key) {
        const int64_t id = array(key, {GGUF_TYPE_INT8, GGUF_TYPE_INT32, GGUF_TYPE_UINT32});
        std::vector<T> found;
        if (id < 0) return found;
        const size_t count = gguf_get_arr_n(file_, id);
        const void* data = gguf_get_arr_data(file_, id);
        found.reserve(count);
        const bool narrow = gguf_get_arr_type(file_, id) == GGUF_TYPE_INT8;
        for (size_t i = 0; i < count; i++) {
            const int64_t value =
                narrow ? static_cast<const int8_t*>(data)[i] : int64_t{static_cast<const int32_t*>(data)[i]};
            // What does not fit is none of the values that are asked for.
            found.push_back(value == static_cast<T>(value) ? static_cast<T>(value) : T{0});
        }
        return found;
    }

 private:
    int64_t find(const std::string& key) {
        const int64_t id = gguf_find_key(file_, key.c_str());
        if (id < 0) complain<int>(key + " is missing");
        return id;
    }

    int64_t array(const std::string& key, std::initializer_list<gguf_type> types) {
        const int64_t id = find(key);
        if (id < 0) return -1;
        if (gguf_get_kv_type(file_, id) == GGUF_TYPE_ARRAY &&
            std::find(types.begin(), types.end(), gguf_get_arr_type(file_, id)) != types.end())
            return id;
        complain<int>(key + " is no array of the kind it must be");
        return -1;
    }

    template <typename T>
    std::optional<T> complain(const std::string& what) {
        if (wrong.empty()) wrong = what;
        return std::nullopt;
    }

    const gguf_context* file_;
};

std::string key(const char* name) { return std::string(kPrefix) + name; }

bool ends_with(const char* text, const char* end) {
    const size_t a = std::strlen(text), b = std::strlen(end);
    return a >= b && std::strcmp(text + a - b, end) == 0;
}

}  // namespace

std::shared_ptr<Rotation> Rotation::read(const gguf_context* file, std::string& wrong) {
    static const std::unordered_set<std::string> known = {
        key("version"),       key("block_size"),   key("transform"),
        key("axis"),          key("sign_mode"),    key("sign_widths"),
        key("sign_values"),   key("weight_names"), key("inverse_weight_names"),
        key("gdn_v_grouped"),
    };
    bool any = false;
    for (int64_t id = 0; id < gguf_get_n_kv(file); id++) {
        const std::string name = gguf_get_key(file, id);
        if (name.compare(0, std::strlen(kPrefix), kPrefix) != 0) continue;
        any = true;
        if (known.count(name) == 0) {
            wrong = name + " is a key of a rotation that is not known here";
            return nullptr;
        }
    }
    if (!any) return nullptr;

    Keys keys(file);
    const auto refuse = [&](const std::string& reason) {
        wrong = keys.wrong.empty() ? reason : keys.wrong;
        return nullptr;
    };
    const auto rotation = std::make_shared<Rotation>();
    const std::string architecture = keys.text("general.architecture");
    if (architecture != "qwen35")
        return refuse(architecture + " models with weights in a rotated basis are not known here");
    const auto version = keys.number(key("version")), block = keys.number(key("block_size"));
    if (!version || *version != 1) return refuse(key("version") + " is not 1");
    if (!block || *block < kLeastBlock || *block > kMostBlock || (*block & (*block - 1)) != 0)
        return refuse(key("block_size") + " is no power of two from 2 to 8192");
    if (keys.text(key("transform")) != "normalized-sylvester-walsh-hadamard")
        return refuse(key("transform") + " is not normalized-sylvester-walsh-hadamard");
    if (keys.text(key("axis")) != "input-last-dimension")
        return refuse(key("axis") + " is not input-last-dimension");
    const std::string mode = keys.text(key("sign_mode"));
    if (mode != "identity" && mode != "explicit")
        return refuse(key("sign_mode") + " is neither identity nor explicit");
    std::vector<int64_t> widths;
    std::vector<int8_t> signs;
    if (mode == "explicit") {
        widths = keys.numbers<int64_t>(key("sign_widths"));
        signs = keys.numbers<int8_t>(key("sign_values"));
        int64_t total = 0;
        for (const int64_t width : widths) {
            if (width <= 0 || width > kMostWidth || width % *block != 0)
                return refuse(key("sign_widths") + " holds " + std::to_string(width) +
                              ", no multiple of the block size");
            total += width;
        }
        if (total != static_cast<int64_t>(signs.size()) || widths.empty() ||
            std::unordered_set<int64_t>(widths.begin(), widths.end()).size() != widths.size())
            return refuse(key("sign_widths") + " does not share out the " + std::to_string(signs.size()) +
                          " numbers of sign_values");
        for (const int8_t sign : signs)
            if (sign != 1 && sign != -1)
                return refuse(key("sign_values") + " holds other numbers than 1 and -1");
    }
    for (const std::string& name : keys.texts(key("weight_names"))) rotation->folded_.insert(name);
    for (const std::string& name : keys.texts(key("inverse_weight_names"))) {
        if (name != "token_embd.weight")
            return refuse(key("inverse_weight_names") + " has " + name + ", which is no table");
        if (rotation->folded_.count(name) != 0) return refuse(name + " is in two lists of " + kPrefix + "*");
        rotation->tables_.insert(name);
    }
    if (rotation->folded_.empty()) return refuse(key("weight_names") + " names no tensor");
    const auto grouped = keys.number(key("gdn_v_grouped"));
    if (grouped.value_or(0) != 0) {
        const auto groups = keys.number(architecture + ".ssm.group_count");
        const auto heads = keys.number(architecture + ".ssm.time_step_rank");
        const auto inner = keys.number(architecture + ".ssm.inner_size");
        if (!groups || !heads || !inner || *groups <= 0 || *heads <= 0 || *heads % *groups != 0 ||
            *inner <= 0 || *inner % *heads != 0)
            return refuse(architecture +
                          ".ssm.time_step_rank is no multiple of group_count, or inner_size none of it");
        rotation->heads_ = {*groups, *heads / *groups, *inner / *heads};
    }
    if (!keys.wrong.empty()) return refuse("");
    rotation->block_ = *block;
    rotation->unseen_ = rotation->folded_;
    rotation->unseen_.insert(rotation->tables_.begin(), rotation->tables_.end());
    if (!rotation->allocate(widths, signs)) return refuse("no memory for the signs of " + key("sign_values"));
    return rotation;
}

bool Rotation::allocate(const std::vector<int64_t>& widths, const std::vector<int8_t>& signs) {
    const ggml_init_params parameters = {(widths.size() + 1) * ggml_tensor_overhead(), nullptr, true};
    ggml_context* context = ggml_init(parameters);
    if (context == nullptr) return false;
    context_ = {context, [](void* p) { ggml_free(static_cast<ggml_context*>(p)); }};
    matrix_ = ggml_new_tensor_2d(context, GGML_TYPE_F32, block_, block_);
    ggml_set_name(matrix_, "rotation");
    for (const int64_t width : widths) signs_[width] = ggml_new_tensor_1d(context, GGML_TYPE_F32, width);
    ggml_backend_buffer_t buffer =
        ggml_backend_alloc_ctx_tensors_from_buft(context, ggml_backend_cpu_buffer_type());
    if (buffer == nullptr) return false;
    buffer_ = {buffer, [](void* p) { ggml_backend_buffer_free(static_cast<ggml_backend_buffer_t>(p)); }};
    ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    // Only backends without the transform multiply with it.
    std::vector<float> values(static_cast<size_t>(block_ * block_));
    const float size = 1.0f / std::sqrt(static_cast<float>(block_));
    values[0] = size;
    for (int64_t done = 1; done < block_; done *= 2)
        for (int64_t i = 0; i < done; i++)
            for (int64_t j = 0; j < done; j++) {
                const float value = values[static_cast<size_t>(i * block_ + j)];
                values[static_cast<size_t>((i + done) * block_ + j)] = value;
                values[static_cast<size_t>(i * block_ + j + done)] = value;
                values[static_cast<size_t>((i + done) * block_ + j + done)] = -value;
            }
    ggml_backend_tensor_set(matrix_, values.data(), 0, ggml_nbytes(matrix_));
    size_t start = 0;
    for (const int64_t width : widths) {
        values.assign(signs.begin() + static_cast<std::ptrdiff_t>(start),
                      signs.begin() + static_cast<std::ptrdiff_t>(start + static_cast<size_t>(width)));
        ggml_backend_tensor_set(signs_[width], values.data(), 0, ggml_nbytes(signs_[width]));
        start += static_cast<size_t>(width);
    }
    return true;
}

std::string Rotation::misfit(const std::string& name, int64_t width) {
    if (folded_.count(name) == 0 && tables_.count(name) == 0) return "";
    unseen_.erase(name);
    if (width % block_ != 0)
        return name + " has " + std::to_string(width) + " inputs, no multiple of the rotation's block";
    if (!signs_.empty() && signs_.count(width) == 0)
        return key("sign_widths") + " has no signs for the " + std::to_string(width) + " inputs of " + name;
    const bool grouped = heads_[0] != 0 && ends_with(name.c_str(), ".ssm_out.weight");
    if (grouped && heads_[0] * heads_[1] * heads_[2] != width)
        return name + " has " + std::to_string(width) + " inputs, which are not the heads of qwen35.ssm.*";
    return "";
}

ggml_tensor* Rotation::input(ggml_context* graph, const ggml_tensor* weight, ggml_tensor* x,
                             Inputs& shared) const {
    // A tied head is the table: its products are those of a folded matrix.
    if (folded_.count(weight->name) == 0 && tables_.count(weight->name) == 0) return x;
    ggml_tensor*& rotated = shared[x];
    if (rotated != nullptr) return rotated;
    rotated = x;
    if (heads_[1] > 1 && ends_with(weight->name, ".ssm_out.weight")) {
        // The engine has value heads by turns, these columns have those of a key head side by side.
        const auto [groups, heads, size] = heads_;
        rotated = ggml_reshape_4d(graph, ggml_cont(graph, rotated), size, groups, heads,
                                  ggml_nelements(x) / x->ne[0]);
        rotated = ggml_cont(graph, ggml_permute(graph, rotated, 0, 2, 1, 3));
        rotated = ggml_reshape_4d(graph, rotated, x->ne[0], x->ne[1], x->ne[2], x->ne[3]);
    }
    return rotated = transform(graph, flip(graph, rotated));
}

ggml_tensor* Rotation::rows(ggml_context* graph, const ggml_tensor* table, ggml_tensor* x) const {
    return tables_.count(table->name) == 0 ? x : flip(graph, transform(graph, x));
}

ggml_tensor* Rotation::flip(ggml_context* graph, ggml_tensor* x) const {
    const auto found = signs_.find(x->ne[0]);
    return found == signs_.end() ? x : ggml_mul(graph, x, found->second);
}

ggml_tensor* Rotation::transform(ggml_context* graph, ggml_tensor* x) const {
    ggml_tensor* blocks = ggml_is_contiguous(x) ? x : ggml_cont(graph, x);
    blocks = ggml_reshape_2d(graph, blocks, block_, ggml_nelements(x) / block_);
    blocks = ggml_mul_mat(graph, matrix_, blocks);
    ggml_mul_mat_set_hint(blocks, GGML_HINT_SRC0_IS_HADAMARD);
    return ggml_reshape_4d(graph, blocks, x->ne[0], x->ne[1], x->ne[2], x->ne[3]);
}

}  // namespace trit
