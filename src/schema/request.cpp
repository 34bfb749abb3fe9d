// SPDX-License-Identifier: MIT
/// What a chat request asks of the form of its answer: a schema, tools, and which of them must be called.
#include <algorithm>
#include <stdexcept>

#include "schema/schema.h"
#include "schema/values.h"

namespace trit::schema {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument(what); }

/// A member, or null where it is absent or null.
const Json* given(const Json& object, const char* name) {
    const Json* value = member(object, name);
    return value == nullptr || value->is_null() ? nullptr : value;
}

bool flag(const Json& object, const char* name, const std::string& where) {
    const Json* value = given(object, name);
    if (value != nullptr && !value->is_boolean()) {
        refuse(where + name + " must be true or false, not " + value->dump());
    }
    return value != nullptr && value->get<bool>();
}

class Request {
 public:
    explicit Request(const std::string& text) : request_(Json::parse(text)) {}

    std::string checked(bool knows_tools) {
        check_format();
        const std::string choice = check_tools();
        flag(request_, "parallel_tool_calls", "");
        Json out = {{"tool_choice", choice}};
        if (choice != "none" && !tools_.empty()) {
            for (Json& tool : tools_) {
                check_tool(&tool);
            }
            if (choice == "required" && has_schema_) {
                refuse(
                    "tool_choice asks for a call and response_format for an answer of another form; leave "
                    "one out");
            }
            if (!knows_tools) {
                warnings_.push_back(
                    choice == "required"
                        ? "tools: the model's chat template describes none, only the grammar asks for a call"
                        : "tools: the model's chat template describes none, so the model does not see them");
            }
        }
        if (narrowed_) {
            out["tools"] = tools_;
        }
        if (!format_.is_null()) {
            out["response_format"] = format_;
        }
        out["warnings"] = warnings_;
        return out.dump(-1, ' ', false, Json::error_handler_t::replace);
    }

 private:
    Json request_;
    Json tools_ = Json::array();
    Json warnings_ = Json::array();
    Json format_;  // null: as the request has it
    bool has_schema_ = false;
    bool narrowed_ = false;

    void check_schema_of(const Json& schema, const std::string& where, bool strict) {
        Grammar grammar;
        try {
            const std::string text = schema.dump();
            grammar = grammar_of(text, text, "r");
        } catch (const std::invalid_argument& error) {
            refuse(where + error.what());
        }
        for (const std::string& warning : grammar.warnings) {
            if (strict) {
                refuse(where + "the grammar cannot hold " + warning + "; leave it out, or strict");
            }
            warnings_.push_back(where + warning + " is left to the model");
        }
    }

    void check_format() {
        const Json* schema = given(request_, "json_schema");
        std::string where = "json_schema: ";
        bool strict = false;
        if (const Json* format = given(request_, "response_format")) {
            if (!format->is_object()) {
                refuse("response_format must be an object, not " + format->dump());
            }
            const Json* type = given(*format, "type");
            if (type != nullptr && !type->is_string()) {
                refuse("the type of response_format must be a text, not " + type->dump());
            }
            const Json* wrapper = format;
            if (type != nullptr && *type == "json_schema") {
                wrapper = given(*format, "json_schema");
                if (wrapper == nullptr || !wrapper->is_object() || given(*wrapper, "schema") == nullptr) {
                    refuse("response_format needs the schema under json_schema, as {\"schema\": {...}}");
                }
            }
            if (type != nullptr && (*type == "json_schema" || *type == "json_object")) {
                where = "response_format: ";
                strict = flag(*wrapper, "strict", where);
                if (const Json* inner = given(*wrapper, "schema")) {
                    schema = inner;
                } else {
                    has_schema_ = true;
                }
            }
        }
        if (schema != nullptr) {
            has_schema_ = true;
            check_schema_of(*schema, where, strict);
        }
        if (schema != nullptr && schema->is_boolean()) {  // the server would ask for no form at all
            const Json any = {{"type", {"object", "array", "string", "number", "boolean", "null"}}};
            format_ = {{"type", "json_schema"}, {"json_schema", {{"schema", any}}}};
        }
    }

    /// The name of the function of a tool or a choice, in either of the forms that clients send; "" without
    /// one.
    static std::string name_of(const Json& tool) {
        const Json* function = given(tool, "function");
        const Json* name = given(function == nullptr ? tool : *function, "name");
        return name != nullptr && name->is_string() ? name->get<std::string>() : "";
    }

    std::string check_tools() {
        if (const Json* tools = given(request_, "tools")) {
            if (!tools->is_array()) {
                refuse("tools must be a list, not " + tools->dump().substr(0, 60));
            }
            tools_ = *tools;
        }
        const Json* choice = given(request_, "tool_choice");
        if (choice == nullptr) {
            return "auto";
        }
        std::string mode;
        std::vector<std::string> names;
        if (choice->is_string()) {
            mode = choice->get<std::string>();
        } else if (const Json* allowed =
                       given(*choice, "allowed_tools") ? given(*choice, "allowed_tools") : choice;
                   allowed->is_object() && given(*allowed, "tools") != nullptr) {
            const Json* said = given(*allowed, "mode");
            mode = said == nullptr ? "auto" : said->is_string() ? said->get<std::string>() : said->dump();
            for (const Json& one : *given(*allowed, "tools")) {
                names.push_back(name_of(one));
            }
        } else if (choice->is_object()) {
            mode = "required";
            names.push_back(name_of(*choice));
        }
        if (mode != "auto" && mode != "none" && mode != "required") {
            refuse("tool_choice must be \"auto\", \"none\", \"required\" or a function of tools, not " +
                   choice->dump().substr(0, 60));
        }
        if (mode == "required" && tools_.empty()) {
            refuse(
                "tool_choice asks for a call, but tools has no function; add it, or leave tool_choice out");
        }
        if (!names.empty()) {
            narrow(names);
        }
        return mode;
    }

    void narrow(const std::vector<std::string>& names) {
        Json chosen = Json::array();
        std::string known;
        for (const Json& tool : tools_) {
            const std::string name = name_of(tool);
            known += (known.empty() ? "" : ", ") + name;
            if (std::find(names.begin(), names.end(), name) != names.end()) {
                chosen.push_back(tool);
            }
        }
        for (const std::string& name : names) {
            if (name.empty()) {
                refuse(
                    "tool_choice must be \"auto\", \"none\", \"required\" or name a function as {\"type\": "
                    "\"function\", \"function\": {\"name\": ...}}, not " +
                    request_.at("tool_choice").dump().substr(0, 60));
            }
            const bool found = std::any_of(tools_.begin(), tools_.end(),
                                           [&](const Json& tool) { return name_of(tool) == name; });
            if (!found) {
                refuse("tool_choice names the function \"" + name + "\", but tools has only: " + known);
            }
        }
        tools_ = std::move(chosen);
        narrowed_ = true;
    }

    /// What a call's arguments are: an object, also where the schema allows other values beside.
    Json object_schema(const Json& parameters, const std::string& where, bool strict) {
        Json out = parameters == Json(true) ? Json::object() : parameters;
        if (!out.is_object()) {
            return out;  // no schema: told with the others
        }
        const Json* type = given(out, "type");
        const bool may_be =
            type == nullptr || *type == "object" ||
            (type->is_array() && std::find(type->begin(), type->end(), "object") != type->end());
        if (!may_be) {
            check_schema_of(parameters, where, strict);  // what is no schema is told first
            refuse(where + "parameters must be the schema of an object, not of the type " +
                   type->dump().substr(0, 60));
        }
        out["type"] = "object";
        return out;
    }

    void check_tool(Json* tool) {
        const std::string name = name_of(*tool);
        const Json* function = given(*tool, "function");
        if (name.empty() || (function != nullptr && !function->is_object())) {
            refuse(
                "each of tools must be an object {\"type\": \"function\", \"function\": {\"name\": ...}}, "
                "not " +
                tool->dump().substr(0, 60));
        }
        const Json& described = function == nullptr ? *tool : *function;
        const std::string where = "tool " + name + ": ";
        const bool strict = flag(described, "strict", where);
        if (const Json* parameters = given(described, "parameters")) {
            const Json of_object = object_schema(*parameters, where, strict);
            check_schema_of(of_object, where, strict);
            if (of_object != *parameters) {
                (function == nullptr ? *tool : (*tool)["function"])["parameters"] = of_object;
                narrowed_ = true;
            }
        }
    }
};

}  // namespace

std::string checked_request(const std::string& request, bool knows_tools) {
    return Request(request).checked(knows_tools);
}

}  // namespace trit::schema
