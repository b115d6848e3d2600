/* tests/fuzz/gguf.c - any bytes as a model file: opened from memory, and when they open,
 * everything that the reader hands out is read. */
#include "tests/support/gguf_bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static volatile uint64_t sink;
    wn_gguf *g;
    wn_err err;
    if (wn_gguf_open_memory(&g, data, size, &err) == WN_OK) sink = sink + read_everything(g);
    wn_gguf_close(g);
    return 0;
}
