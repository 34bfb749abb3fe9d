// SPDX-License-Identifier: MIT
/// The fields of a request for an answer, in one table: taken, harmless, told or refused.
#include "schema/fields.h"

#include <cmath>
#include <cstdlib>
#include <stdexcept>

namespace trit::schema {
namespace {

constexpr unsigned kBoth = kChat | kText;

enum class Meaning : uint8_t {
    taken,     // something comes of it
    harmless,  // nothing that a client could miss comes of it
    told,      // nothing comes of it, and "warnings" says so
    refused,
};

struct Field {
    const char* name;
    unsigned routes;
    Meaning meaning;
    const char* neutral = "";  // the value, as JSON text, that asks for nothing
    const char* advice = "";   // of one that is refused
};

constexpr const char* kOwn = "is the server's own; leave it out";
constexpr const char* kOldTools = "is the old form of tools; send tools and tool_choice";
constexpr const char* kOnlyChats = "is for chats; send it with messages to /v1/chat/completions";
constexpr const char* kOnlyText = "is not made here; this server answers with text";

// A name that is not here for a route is told.
constexpr Field kFields[] = {
    // OpenAI's
    {"model", kBoth, Meaning::harmless},
    {"user", kBoth, Meaning::harmless},
    {"safety_identifier", kBoth, Meaning::harmless},
    {"metadata", kBoth, Meaning::harmless},
    {"__metadata_user_id", kBoth, Meaning::harmless},
    {"service_tier", kBoth, Meaning::harmless},
    {"prompt_cache_key", kBoth, Meaning::harmless},
    {"prompt_cache_retention", kBoth, Meaning::harmless},
    {"prediction", kBoth, Meaning::harmless},
    {"stream", kBoth, Meaning::taken},
    {"stream_options", kBoth, Meaning::taken},
    {"max_tokens", kBoth, Meaning::taken},
    {"max_completion_tokens", kBoth, Meaning::taken},
    {"n", kBoth, Meaning::taken},
    {"seed", kBoth, Meaning::taken},
    {"stop", kBoth, Meaning::taken},
    {"temperature", kBoth, Meaning::taken},
    {"top_p", kBoth, Meaning::taken},
    {"frequency_penalty", kBoth, Meaning::taken},
    {"presence_penalty", kBoth, Meaning::taken},
    {"logit_bias", kBoth, Meaning::taken},
    {"logprobs", kBoth, Meaning::taken},
    {"response_format", kBoth, Meaning::taken},
    {"top_logprobs", kChat, Meaning::taken},
    {"messages", kChat, Meaning::taken},
    {"tools", kChat, Meaning::taken},
    {"tool_choice", kChat, Meaning::taken},
    {"parallel_tool_calls", kChat, Meaning::taken},
    {"reasoning_effort", kChat, Meaning::taken},
    {"functions", kChat, Meaning::refused, "[]", kOldTools},
    {"function_call", kChat, Meaning::refused, "\"none\"", kOldTools},
    {"modalities", kChat, Meaning::refused, "[\"text\"]", kOnlyText},
    {"audio", kChat, Meaning::refused, "{}", kOnlyText},
    {"web_search_options", kChat, Meaning::refused, "", "needs a search, which this server has not"},
    {"store", kChat, Meaning::told, "false"},
    {"verbosity", kChat, Meaning::told, "\"medium\""},
    {"prompt", kText, Meaning::taken},
    {"echo", kText, Meaning::refused, "false", "is not done; put the prompt in front of the answer"},
    {"best_of", kText, Meaning::refused, "1", "is not done; ask for n answers"},
    {"suffix", kText, Meaning::refused, "\"\"", "is taken by /infill, as input_suffix"},
    {"tools", kText, Meaning::refused, "[]", kOnlyChats},
    {"tool_choice", kText, Meaning::refused, "\"none\"", kOnlyChats},
    {"functions", kText, Meaning::refused, "[]", kOnlyChats},
    // of its Responses, which become chats
    {"text", kChat, Meaning::taken},
    {"include", kChat, Meaning::told, "[]"},
    {"truncation", kChat, Meaning::told, "\"disabled\""},
    {"background", kChat, Meaning::refused, "false", "is not done; wait for the answer"},
    {"conversation", kChat, Meaning::refused, "", "is kept nowhere here; send its messages"},
    {"previous_response_id", kChat, Meaning::refused, "\"\"", "is kept nowhere here; send the messages"},
    // llama.cpp's
    {"json_schema", kBoth, Meaning::taken},
    {"grammar", kBoth, Meaning::taken},
    {"grammar_lazy", kBoth, Meaning::taken},
    {"grammar_triggers", kBoth, Meaning::taken},
    {"preserved_tokens", kBoth, Meaning::taken},
    {"n_predict", kBoth, Meaning::taken},
    {"n_cmpl", kBoth, Meaning::taken},
    {"n_indent", kBoth, Meaning::taken},
    {"n_keep", kBoth, Meaning::taken},
    {"n_discard", kBoth, Meaning::taken},
    {"n_cache_reuse", kBoth, Meaning::taken},
    {"n_probs", kBoth, Meaning::taken},
    {"min_keep", kBoth, Meaning::taken},
    {"post_sampling_probs", kBoth, Meaning::taken},
    {"backend_sampling", kBoth, Meaning::taken},
    {"t_max_predict_ms", kBoth, Meaning::taken},
    {"id_slot", kBoth, Meaning::taken},
    {"cache_prompt", kBoth, Meaning::taken},
    {"return_tokens", kBoth, Meaning::taken},
    {"return_progress", kBoth, Meaning::taken},
    {"sse_ping_interval", kBoth, Meaning::taken},
    {"timings_per_token", kBoth, Meaning::taken},
    {"response_fields", kBoth, Meaning::taken},
    {"verbose", kBoth, Meaning::taken},
    {"ignore_eos", kBoth, Meaning::taken},
    {"samplers", kBoth, Meaning::taken},
    {"top_k", kBoth, Meaning::taken},
    {"min_p", kBoth, Meaning::taken},
    {"top_n_sigma", kBoth, Meaning::taken},
    {"typical_p", kBoth, Meaning::taken},
    {"xtc_probability", kBoth, Meaning::taken},
    {"xtc_threshold", kBoth, Meaning::taken},
    {"dynatemp_range", kBoth, Meaning::taken},
    {"dynatemp_exponent", kBoth, Meaning::taken},
    {"repeat_last_n", kBoth, Meaning::taken},
    {"repeat_penalty", kBoth, Meaning::taken},
    {"dry_multiplier", kBoth, Meaning::taken},
    {"dry_base", kBoth, Meaning::taken},
    {"dry_allowed_length", kBoth, Meaning::taken},
    {"dry_penalty_last_n", kBoth, Meaning::taken},
    {"dry_sequence_breakers", kBoth, Meaning::taken},
    {"mirostat", kBoth, Meaning::taken},
    {"mirostat_tau", kBoth, Meaning::taken},
    {"mirostat_eta", kBoth, Meaning::taken},
    {"adaptive_target", kBoth, Meaning::taken},
    {"adaptive_decay", kBoth, Meaning::taken},
    {"lora", kBoth, Meaning::taken},
    {"reasoning_format", kBoth, Meaning::taken},
    {"reasoning_control", kBoth, Meaning::taken},
    {"reasoning_budget_tokens", kBoth, Meaning::taken},
    {"reasoning_budget_message", kBoth, Meaning::taken},
    {"reasoning_budget_start_tag", kText, Meaning::taken},
    {"reasoning_budget_end_tag", kText, Meaning::taken},
    {"reasoning_budget_end_tags", kText, Meaning::taken},
    {"generation_prompt", kText, Meaning::taken},
    {"parse_tool_calls", kText, Meaning::taken},
    {"chat_format", kText, Meaning::taken},
    {"thinking_budget_tokens", kChat, Meaning::taken},
    {"continue_final_message", kBoth, Meaning::taken},
    {"echo", kChat, Meaning::taken},
    {"chat_template_kwargs", kChat, Meaning::taken},
    {"add_generation_prompt", kChat, Meaning::taken},
    {"input_prefix", kText, Meaning::taken},
    {"input_suffix", kText, Meaning::taken},
    {"input_extra", kText, Meaning::taken},
    {"chat_parser", kBoth, Meaning::refused, "", kOwn},
    {"schema_warnings", kBoth, Meaning::refused, "", kOwn},
    {"message_delimiters", kBoth, Meaning::refused, "", kOwn},
    {"grammar_type", kBoth, Meaning::refused, "", kOwn},
};

constexpr size_t kMostTold = 16;
constexpr int kWordTrigger = 1;  // the others, patterns, are the server's own

[[noreturn]] void refuse(const std::string& field, const std::string& what) {
    throw std::invalid_argument(one_line("Field '" + field + "': " + what));
}

const Field* find(const std::string& name, unsigned route) {
    for (const Field& field : kFields) {
        if (name == field.name && (field.routes & route) != 0) {
            return &field;
        }
    }
    return nullptr;
}

/// A token, by number or text, and its bias: a number, or false for never.
void check_bias(const std::string& token, const Json& bias) {
    const bool never = bias.is_boolean() && !bias.get<bool>();
    if (!never && !(bias.is_number() && std::isfinite(bias.get<double>()))) {
        refuse("logit_bias",
               "the bias of " + token + " must be a number, or false for never, not " + shown(bias));
    }
}

void check_biases(const Json& biases) {
    if (biases.is_object()) {
        for (const auto& item : biases.items()) {
            check_bias(item.key().substr(0, 60), item.value());
        }
    } else if (biases.is_array()) {
        for (const Json& pair : biases) {
            if (!pair.is_array() || pair.size() != 2 ||
                !(pair[0].is_number_integer() || pair[0].is_string())) {
                refuse("logit_bias", "expected [token, bias], got " + shown(pair));
            }
            check_bias(shown(pair[0]), pair[1]);
        }
    } else {
        refuse("logit_bias", "expected {token: bias} or [[token, bias], ...], got " + shown(biases));
    }
}

void check_triggers(const Json& triggers) {
    const Json* type = nullptr;
    for (const Json& trigger : triggers) {
        type = member(trigger, "type");
        if (type == nullptr || !type->is_number_integer() || type->get<int64_t>() < 0 ||
            type->get<int64_t>() > kWordTrigger) {
            refuse("grammar_triggers",
                   "expected tokens (type 0) and words (type 1), as patterns are the server's own, got " +
                       shown(trigger));
        }
    }
}

void check_stop(const Json& stop) {
    bool good = stop.is_string() || stop.is_array();
    for (const Json& word : stop) {
        good = good && word.is_string();
    }
    if (!good) {
        refuse("stop", "expected a text or a list of texts, got " + shown(stop));
    }
}

}  // namespace

std::vector<std::string> check_fields(const Json& request, Route route) {
    std::vector<std::string> told;
    for (const auto& item : request.items()) {
        const std::string& name = item.key();
        const Json& value = item.value();
        const Field* field = find(name, route);
        if (value.is_null() || (field != nullptr && field->meaning <= Meaning::harmless)) {
            continue;
        }
        if (field != nullptr && *field->neutral != '\0' && value == Json::parse(field->neutral)) {
            continue;
        }
        if (field != nullptr && field->meaning == Meaning::refused) {
            refuse(name, field->advice);
        }
        if (told.size() < kMostTold) {
            const std::string shortened = one_line(name.substr(0, 60));
            told.push_back(field == nullptr ? "Field '" + shortened +
                                                  "' is not one of this server's, so nothing comes of it"
                                            : "Field '" + shortened + "': nothing comes of it here");
        }
    }
    if (const Json* biases = given(request, "logit_bias")) {
        check_biases(*biases);
    }
    if (const Json* triggers = given(request, "grammar_triggers")) {
        check_triggers(*triggers);
    }
    if (const Json* stop = given(request, "stop")) {
        check_stop(*stop);
    }
    return told;
}

}  // namespace trit::schema
