// SPDX-License-Identifier: MIT
#include "schema/responses.h"

#include <algorithm>
#include <ctime>

#include "schema/values.h"

namespace trit::schema {
namespace {

std::string text_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

void set_default(Json* object, const char* name, Json value) {
    if (!object->contains(name)) {
        (*object)[name] = std::move(value);
    }
}

bool ends_with(const std::string& text, const char* end) {
    const std::string tail = end;
    return text.size() >= tail.size() && text.compare(text.size() - tail.size(), tail.size(), tail) == 0;
}

void fill_response(Json* response, int64_t created, const std::string& model) {
    (*response)["created_at"] = created;
    set_default(response, "model", model);
    set_default(response, "output", Json::array());
    for (const char* name : {"error", "incomplete_details", "instructions"}) {
        set_default(response, name, nullptr);
    }
    set_default(response, "metadata", Json::object());
}

/// The last item is the one that a limit cut.
void tell_cut(Json* response) {
    (*response)["status"] = "incomplete";
    (*response)["incomplete_details"] = {{"reason", "max_output_tokens"}};
    response->erase("completed_at");
    if (Json& output = response->at("output"); !output.empty()) {
        output.back()["status"] = "incomplete";
    }
}

}  // namespace

std::string ResponseEvents::completed(const std::string& told, const std::string& model, bool cut) {
    Json all = Json::parse(told);
    if (created_ == 0) {
        created_ = static_cast<int64_t>(std::time(nullptr));
    }
    if (!all.is_array()) {
        fill_response(&all, created_, model);
        if (cut) {
            tell_cut(&all);
        }
        return text_of(all);
    }
    Json out = Json::array();
    for (Json& event : all) {
        Json& data = event.at("data");
        const std::string type = event.at("event").get<std::string>();
        std::string id = data.value("item_id", "");
        if (const Json* item = member(data, "item")) {
            id = item->at("id").get<std::string>();
        }
        if (!id.empty()) {
            data["output_index"] = items_.emplace(id, items_.size()).first->second;
        }
        if (ends_with(type, "_text.delta") || ends_with(type, "_text.done") ||
            type.rfind("response.content_part.", 0) == 0) {
            data["content_index"] = 0;
        }
        if (ends_with(type, "output_text.delta") || ends_with(type, "output_text.done")) {
            set_default(&data, "logprobs", Json::array());
        }
        if (Json* part = data.contains("part") ? &data["part"] : nullptr) {
            set_default(part, "annotations", Json::array());
        }
        if (type == "response.output_item.done" && data["item"]["type"] == "function_call") {
            const Json& call = data["item"];
            out.push_back({{"event", "response.function_call_arguments.done"},
                           {"data",
                            {{"type", "response.function_call_arguments.done"},
                             {"item_id", id},
                             {"output_index", data["output_index"]},
                             {"name", call.at("name")},
                             {"arguments", call.at("arguments")},
                             {"sequence_number", n_events_++}}}});
        }
        if (data.contains("response")) {
            fill_response(&data["response"], created_, model);
        }
        if (cut && type == "response.completed") {
            event["event"] = data["type"] = "response.incomplete";
            tell_cut(&data["response"]);
        }
        data["sequence_number"] = n_events_++;
        out.push_back(std::move(event));
    }
    return text_of(out);
}

std::pair<int, std::string> one_model(const std::string& models, const std::string& path) {
    const std::string before = "/models/";
    const std::string name = path.substr(path.find(before) + before.size());
    const Json all = Json::parse(models);
    std::string known;
    for (const Json& model : all.at("data")) {
        const std::string id = model.at("id").get<std::string>();
        const Json* aliases = given(model, "aliases");
        if (id == name || (aliases != nullptr && aliases->is_array() &&
                           std::find(aliases->begin(), aliases->end(), name) != aliases->end())) {
            return {200, text_of(model)};
        }
        known += (known.empty() ? "" : ", ") + id;
    }
    const Json error = {{"code", 404},
                        {"message", one_line("no model is called '" + name + "'; there are: " + known)},
                        {"type", "not_found_error"}};
    return {404, text_of({{"error", error}})};
}

}  // namespace trit::schema
