// SPDX-License-Identifier: MIT
/// What the engine's table says of encodings. Arguments: the name, rows, inputs of a row; on standard input
/// the bytes of the tensor. Prints the row of the table, the scale of the tensor or of its last block, and
/// the codes.
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <vector>

#include "matrix/encodings.h"

int main(int argc, char** argv) {
    const trit::Encoding* encoding = argc == 4 ? trit::find_encoding(argv[1]) : nullptr;
    if (encoding == nullptr) {
        std::printf("no such encoding\n");
        return 1;
    }
    const int64_t n = std::atoll(argv[2]), k = std::atoll(argv[3]);
    const size_t bytes = encoding->row_bytes(k) * static_cast<size_t>(n) + encoding->tail_bytes;
    std::vector<uint8_t> data(bytes);
    if (k % encoding->block != 0 || std::fread(data.data(), 1, bytes, stdin) != bytes) {
        std::printf("the bytes are of another size\n");
        return 1;
    }
    std::printf("%d %zu %d %zu %d\n", encoding->block, encoding->block_bytes, encoding->scale_at,
                encoding->tail_bytes, encoding->has_code_3 ? 1 : 0);
    const uint8_t* last = data.data() + encoding->row_bytes(k) * static_cast<size_t>(n - 1);
    if (encoding->group() == 0) {
        std::printf("%g\n", static_cast<double>(encoding->tensor_scale(data.data(), n * k)));
    } else {
        std::printf("0x%04x\n", encoding->scale(last, k / encoding->block - 1));
    }
    std::vector<uint8_t> codes(static_cast<size_t>(k));
    for (int64_t i = 0; i < n; ++i) {
        encoding->unpack(k, data.data() + encoding->row_bytes(k) * static_cast<size_t>(i), codes.data());
        for (const uint8_t code : codes) {
            std::putchar('0' + code);
        }
    }
    std::putchar('\n');
    return 0;
}
