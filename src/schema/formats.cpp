// SPDX-License-Identifier: MIT
#include <utility>

#include "schema/values.h"

namespace trit::schema {

const char* format_pattern(const std::string& format) {
#define TRIT_TIME R"((?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d))"
#define TRIT_DATE                                                                                        \
    R"((?:[1-9]\d{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|)" \
    R"(02-(?:0[1-9]|1\d|2[0-8]))|(?:[1-9]\d(?:0[48]|[2468][048]|[13579][26])|)"                          \
    R"((?:[2468][048]|[13579][26])00)-02-29))"
#define TRIT_OCTET R"((?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d))"
#define TRIT_LABEL R"([A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)"
    static const std::pair<const char*, const char*> kFormats[] = {
        {"date", "^" TRIT_DATE "$"},
        {"time", "^" TRIT_TIME "$"},
        {"date-time", "^" TRIT_DATE "T" TRIT_TIME "$"},
        {"duration", R"(^P(?!$)(?:\d{1,9}W|(?:\d{1,9}Y)?(?:\d{1,9}M)?(?:\d{1,9}D)?)"
                     R"((?:T(?=\d)(?:\d{1,9}H)?(?:\d{1,9}M)?(?:\d{1,9}S)?)?)$)"},
        {"email", "^[A-Za-z0-9_+-]{1,32}(?:\\.[A-Za-z0-9_+-]{1,32})?@" TRIT_LABEL "(?:\\." TRIT_LABEL ")+$"},
        {"hostname", "^" TRIT_LABEL "(?:\\." TRIT_LABEL ")*$"},
        {"ipv4", "^" TRIT_OCTET "(?:\\." TRIT_OCTET "){3}$"},
        {"ipv6",
         R"(^(?=.{2,39}$)(?:(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}|)"
         R"((?:[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){0,2})?::(?:[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){0,3})?)$)"},
        {"uri", R"(^[A-Za-z][A-Za-z0-9+.-]*:(?://)?[A-Za-z0-9_~:/?#@!$&'()*+,;=.-]+$)"},
        {"uuid", "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$"},
        {"uuid1", "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-1[0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12}$"},
        {"uuid3", "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-3[0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12}$"},
        {"uuid4", "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-4[0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12}$"},
        {"uuid5", "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-5[0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12}$"},
        // These say how a text is shown or meant; every text is one.
        {"binary", ""},
        {"password", ""},
        {"path", ""},
        {"file-path", ""},
        {"directory-path", ""},
        {"text", ""},
    };
#undef TRIT_TIME
#undef TRIT_DATE
#undef TRIT_OCTET
#undef TRIT_LABEL
    for (const auto& [name, pattern] : kFormats) {
        if (format == name) {
            return pattern;
        }
    }
    return nullptr;
}

}  // namespace trit::schema
