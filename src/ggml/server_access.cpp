// SPDX-License-Identifier: MIT
#include "ggml/server_access.h"

#if defined(_WIN32)
#include <winsock2.h>
#include <ws2tcpip.h>
#else
#include <arpa/inet.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <cctype>
#include <vector>

#include "ggml/watched_file.h"

namespace trit::access {
namespace {

bool is_listed(const std::string& csv, const std::string& name) {
    const auto words = string_split<std::string>(csv, ',');
    return std::find(words.begin(), words.end(), name) != words.end();
}

std::string lower(std::string text) {
    for (char& c : text) {
        c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    return text;
}

/// The host in "name", "name:port", "[address]" or "[address]:port", in small letters, without the dot that
/// ends a full name; empty: it is none of these (user names, zones of addresses, letters beyond ASCII)
std::string host_of(const std::string& authority) {
    std::string host = lower(authority);
    const bool bracket = host[0] == '[';
    const size_t colon = host.find(':', bracket ? host.find(']') : 0);
    if (colon != std::string::npos) {
        if (host.size() - colon > 6 || host.find_first_not_of("0123456789", colon + 1) != std::string::npos) {
            return "";
        }
        host.resize(colon);
    }
    if (bracket) {
        in6_addr address;
        const bool ok =
            host.back() == ']' && inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &address) == 1;
        return ok ? host : "";
    }
    if (!host.empty() && host.back() == '.') {
        host.pop_back();
    }
    const bool is_name =
        host.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-_.") == std::string::npos;
    return is_name && ("." + host + ".").find("..") == std::string::npos ? host : "";
}

/// Names that always mean the machine of the one who asks (RFC 6761)
bool is_localhost(const std::string& host) {
    static const std::string ending = ".localhost";
    return host == "localhost" || (host.size() > ending.size() &&
                                   host.compare(host.size() - ending.size(), ending.size(), ending) == 0);
}

/// Whether others may know this machine by this name: they reach it, and it is its own
bool is_own_name(const std::string& host, const std::vector<std::string>& hostnames) {
    const bool is_reached = std::any_of(hostnames.begin(), hostnames.end(), [](const std::string& name) {
        return name != "::1" && name.rfind("127.", 0) != 0 && !is_localhost(lower(name));
    });
    char own[256] = {};
    return is_reached && gethostname(own, sizeof(own) - 1) == 0 &&
           (host == lower(own) || host == lower(own) + ".local");
}

/// A name that a page made to point here (DNS rebinding) is none of these
bool host_is_allowed(const std::string& host, const common_params& params) {
    in_addr address;
    const bool is_address = host[0] == '[' || inet_pton(AF_INET, host.c_str(), &address) == 1;
    return is_address || is_localhost(host) || is_own_name(host, params.hostnames) ||
           is_listed(params.allowed_hosts, "*") || is_listed(lower(params.allowed_hosts), host) ||
           std::any_of(params.hostnames.begin(), params.hostnames.end(),
                       [&](const std::string& name) { return lower(name) == host; });
}

/// Pages that come from this machine: served here, or inside of a program that is installed here. "null" is
/// none of them: a page of any site gets it by a sandboxed frame; nor is file: a download may be opened
bool origin_is_local(const std::string& origin) {
    const size_t mark = origin.find("://");
    if (mark == std::string::npos) {
        return false;
    }
    const std::string scheme = lower(origin.substr(0, mark));
    const std::string host = host_of(origin.substr(mark + 3));
    if (is_listed("app,capacitor,electron,ionic,tauri,vscode-file,vscode-webview", scheme)) {
        // No page of the web can have these; what follows need be no name: "app://.".
        return origin.size() > mark + 3;
    }
    return is_listed("http,https", scheme) && (is_localhost(host) || host == "127.0.0.1" || host == "[::1]");
}

/// `origin`: what a browser says of the page that sends the request
bool origin_is_allowed(const std::string& origin, const std::string& authority, const common_params& params) {
    if (origin == "http://" + authority || origin == "https://" + authority) {
        return true;  // a page of our own
    }
    return is_listed(params.cors_origins, "*") || is_listed(params.cors_origins, origin) ||
           (is_listed(params.cors_origins, "localhost") && origin_is_local(origin));
}

}  // namespace

Refusal refuse(const Asker& asker, const common_params& params) {
    const std::string host = host_of(asker.host);
    if (asker.repeated) {
        return {400, "the request has several Host or Origin headers; send one"};
    }
    if (asker.by_network && host.empty()) {
        return {400, "the Host \"" + asker.host +
                         "\" is no name or address; send the one that was asked for, such as localhost"};
    }
    if (asker.by_network && !host_is_allowed(host, params)) {
        return {403, "the Host \"" + asker.host +
                         "\" is not a name of this server; start it with --allowed-hosts " + host +
                         " if it should be"};
    }
    if (!asker.origin.empty() && !origin_is_allowed(asker.origin, asker.host, params)) {
        return {403, "pages of the Origin \"" + asker.origin +
                         "\" may not use this server; start it with --cors-origins localhost," +
                         asker.origin + " if they should"};
    }
    const std::string changed = changed_file();
    return {changed.empty() ? 0 : 503, changed};
}

}  // namespace trit::access
