// SPDX-License-Identifier: MIT
/// What clients read of an answer and the engine leaves out: text goes in and out.
#pragma once

#include <map>
#include <string>
#include <utility>

namespace trit::schema {

/// One answer of /v1/responses, with or without a stream: numbers its events and fills its members.
class ResponseEvents {
 public:
    /// `told`: JSON text of the answer, or of a list of {"event", "data"}, in the order in which they are
    /// sent. `cut`: a limit ended the answer, which is told at its end.
    std::string completed(const std::string& told, const std::string& model, bool cut);

 private:
    int64_t created_ = 0;
    int64_t n_events_ = 0;
    std::map<std::string, size_t> items_;  // place in the output of each id
};

/// Status and JSON text of the answer to GET /v1/models/NAME. `models`: that to GET /v1/models; `path`: ends
/// with the name or an alias, which may have slashes.
std::pair<int, std::string> one_model(const std::string& models, const std::string& path);

}  // namespace trit::schema
