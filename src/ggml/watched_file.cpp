// SPDX-License-Identifier: MIT
#include "ggml/watched_file.h"

#ifndef _WIN32
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <mutex>
#include <set>
#endif

namespace trit {

#ifdef _WIN32

// A mapped file cannot be written to there.
std::shared_ptr<void> watch_file(int) { return nullptr; }
std::string changed_file() { return ""; }

#else

namespace {

struct Watched {
    int descriptor;  // our own: the name may lead to another file in the meantime
    struct stat seen;
};

struct All {
    std::mutex mutex;
    std::set<const Watched*> files;
};

All& all() {
    static All* const value = new All;  // a model may be unmapped after all else is destroyed
    return *value;
}

bool same_times(const struct stat& a, const struct stat& b) {
#ifdef __APPLE__
    return a.st_mtimespec.tv_sec == b.st_mtimespec.tv_sec && a.st_mtimespec.tv_nsec == b.st_mtimespec.tv_nsec;
#else
    return a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
#endif
}

void forget(Watched* file) {
    {
        const std::lock_guard<std::mutex> lock(all().mutex);
        all().files.erase(file);
    }
    close(file->descriptor);
    delete file;
}

/// Its name without folders, where the system tells it.
std::string name_of(const Watched& file) {
    char path[4096];
    const std::string link = "/proc/self/fd/" + std::to_string(file.descriptor);
    const ssize_t size = readlink(link.c_str(), path, sizeof path);
    const std::string whole(path, size > 0 ? static_cast<size_t>(size) : 0);
    return whole.empty() ? "" : " " + whole.substr(whole.rfind('/') + 1);
}

}  // namespace

std::shared_ptr<void> watch_file(int descriptor) {
    auto* file = new Watched{fcntl(descriptor, F_DUPFD_CLOEXEC, 0), {}};
    if (file->descriptor < 0 || fstat(file->descriptor, &file->seen) != 0) {
        delete file;
        return nullptr;
    }
    const std::lock_guard<std::mutex> lock(all().mutex);
    all().files.insert(file);
    return std::shared_ptr<Watched>(file, forget);
}

std::string changed_file() {
    const std::lock_guard<std::mutex> lock(all().mutex);
    for (const Watched* file : all().files) {
        struct stat now{};
        if (fstat(file->descriptor, &now) == 0 &&
            (now.st_size != file->seen.st_size || !same_times(now, file->seen))) {
            return "the model's file" + name_of(*file) +
                   " was written to while it was served; start the server again, and next time put a new "
                   "file in its place";
        }
    }
    return "";
}

#endif

}  // namespace trit
