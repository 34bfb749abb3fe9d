// SPDX-License-Identifier: MIT
/// What a request asks of the form of its answer: a schema, tools, and which of them must be called.
#include <algorithm>
#include <stdexcept>

#include "schema/fields.h"

namespace trit::schema {
namespace {

const Json kAnyObject = {{"type", "object"}};

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument(what); }

bool flag(const Json& object, const char* name, const std::string& where) {
    const Json* value = given(object, name);
    if (value != nullptr && !value->is_boolean()) {
        refuse(where + name + " must be true or false, not " + value->dump());
    }
    return value != nullptr && value->get<bool>();
}

class Request {
 public:
    Request(const std::string& text, Route route) : request_(Json::parse(text)), route_(route) {
        if (!request_.is_object()) {
            refuse("the body of the request must be a JSON object");
        }
    }

    std::string checked(bool knows_tools) {
        for (const std::string& told : check_fields(request_, route_)) {
            warnings_.push_back(told);
        }
        check_format();
        if (route_ == kChat) {
            check_chat(knows_tools);
        }
        out_["warnings"] = warnings_;
        return out_.dump(-1, ' ', false, Json::error_handler_t::replace);
    }

 private:
    Json request_;
    Route route_;
    Json out_ = Json::object();
    Json tools_ = Json::array();
    Json warnings_ = Json::array();
    bool has_schema_ = false;
    bool narrowed_ = false;

    void check_chat(bool knows_tools) {
        // Those of a chat that has any do not come here.
        if (const Json* messages = given(request_, "messages"); messages != nullptr && messages->empty()) {
            refuse("'messages' must have at least one message");
        }
        const std::string choice = check_tools();
        flag(request_, "parallel_tool_calls", "");
        out_["tool_choice"] = choice;
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
            out_["tools"] = tools_;
        }
        // The engine takes a chat's 0 for no probabilities, not for that of the token alone.
        const Json* others = given(request_, "top_logprobs");
        if (others != nullptr && *others == 0) {
            out_["top_logprobs"] = 1;
        }
    }

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
        for (const std::string& note : grammar.notes) {
            warnings_.push_back(where + note);
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
            if (type != nullptr && *type != "text" && *type != "json_object" && *type != "json_schema") {
                refuse(
                    "the type of response_format must be \"text\", \"json_object\" or \"json_schema\", not " +
                    type->dump().substr(0, 60));
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
                } else if (schema == nullptr) {
                    schema = &kAnyObject;
                }
            }
        }
        if (schema == nullptr) {
            return;
        }
        if (const Json* grammar = member(request_, "grammar")) {
            if (!grammar->is_null() && *grammar != "") {
                refuse(where + "the answer cannot keep a schema and grammar; leave one out");
            }
            out_["grammar"] = nullptr;
        }
        has_schema_ = true;
        check_schema_of(*schema, where, strict);
        Json form = *schema;
        if (form.is_boolean()) {  // the server would ask for no form at all
            form = {{"type", {"object", "array", "string", "number", "boolean", "null"}}};
        }
        if (route_ == kText) {
            out_["json_schema"] = form;
        } else if (form != *schema) {
            out_["response_format"] = {{"type", "json_schema"}, {"json_schema", {{"schema", form}}}};
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
        for (Json& tool : tools_) {
            check_form_of(&tool);
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

    /// A tool as the engine reads it; clients also send its function alone.
    void check_form_of(Json* tool) {
        const std::string name = name_of(*tool);
        const Json* type = given(*tool, "type");
        const Json* function = given(*tool, "function");
        if (name.empty() || (function != nullptr && !function->is_object()) ||
            (type != nullptr && *type != "function")) {
            refuse(
                "each of tools must be an object {\"type\": \"function\", \"function\": {\"name\": ...}}, "
                "not " +
                tool->dump().substr(0, 60));
        }
        Json whole = {{"type", "function"}, {"function", function == nullptr ? *tool : *function}};
        Json& described = whole["function"];
        if (function == nullptr) {
            described.erase("type");
        }
        for (const char* member_name : {"description", "parameters"}) {
            if (given(described, member_name) == nullptr) {
                described.erase(member_name);
            }
        }
        if (const Json* said = given(described, "description"); said != nullptr && !said->is_string()) {
            refuse("tool " + name + ": description must be a text, not " + said->dump().substr(0, 60));
        }
        narrowed_ = narrowed_ || whole != *tool;
        *tool = std::move(whole);
    }

    void check_tool(Json* tool) {
        const std::string name = name_of(*tool);
        Json& described = tool->at("function");
        const std::string where = "tool " + name + ": ";
        const bool strict = flag(described, "strict", where);
        if (const Json* parameters = given(described, "parameters")) {
            const Json of_object = object_schema(*parameters, where, strict);
            check_schema_of(of_object, where, strict);
            if (of_object != *parameters) {
                described["parameters"] = of_object;
                narrowed_ = true;
            }
        }
    }
};

}  // namespace

std::string checked_request(const std::string& request, Route route, bool knows_tools) {
    return Request(request, route).checked(knows_tools);
}

}  // namespace trit::schema
