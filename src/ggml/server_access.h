// SPDX-License-Identifier: MIT
/// Who is answered by the server: its names, and the pages that may use it.
#pragma once

#include <string>

#include "common.h"

namespace trit::access {

/// What a request says of itself.
struct Asker {
    std::string host;    // the header, "" if there is none
    std::string origin;  // what a browser says of the page that sends the request
    bool repeated;       // one of the two stands there more than once
    bool by_network;     // not through a socket file, which has no name that a page could point elsewhere
};

struct Refusal {
    int status;  // 0: the request is answered
    std::string message;
};

/// Why a request that is malformed, or of another site, is not answered; nor is any after the model's file
/// was written to.
Refusal refuse(const Asker& asker, const common_params& params);

}  // namespace trit::access
