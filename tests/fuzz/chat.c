/* tests/fuzz/chat.c - conversations from anywhere: messages and tools as JSON, through templates.
 *
 * The first byte picks a template, the rest is the messages and, behind a NUL byte, the tools. What
 * is refused is refused with a sentence. What is rendered has its ranges inside the text, and
 * however users spell them, there are as many control tokens as the template wrote: one begins
 * each message, and one the answer. */
#include "gguf/generate.h"
#include "winnow.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static wn_model *model;
static wn_chat *chats[3];
static int32_t start;

static void must(wn_status st, const wn_err *err)
{
    if (st == WN_OK) return;
    fprintf(stderr, "fuzz chat: %s\n", err->text);
    abort();
}

static const char with_tools[] =
    "{% for t in tools or [] %}{{ t|tojson(indent=2) }}{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content|trim }}{% elif m.content is iterable %}{% for p in "
    "m.content %}{{ p.text }}{% endfor %}{% endif %}"
    "{% for c in m.tool_calls or [] %}{{ (c.function or c)|tojson }}{% endfor %}<|im_end|>\n{% "
    "endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char path[64];
    wn_err err;
    int32_t *ids;
    size_t n;
    (void)argc;
    (void)argv;
    snprintf(path, sizeof path, "/tmp/winnow-fuzz-%ld.gguf", (long)getpid());
    wn_generate_opts o = { .type = "F32", .dim = 32, .n_layers = 1, .n_heads = 1, .n_kv_heads = 1,
                           .head_dim = 32, .ffn = 32, .vocab = 320, .n_ctx = 64, .seed = 1 };
    must(wn_generate(path, &o, NULL, &err), &err);
    must(wn_model_open(&model, path, &(wn_model_opts){ .vocab_only = true }, &err), &err);
    unlink(path);
    must(wn_chat_open(&chats[0], model, NULL, &err), &err);
    must(wn_chat_open(&chats[1], model, &(wn_chat_opts){ .source = wn_chat_builtin("chatml") },
                      &err),
         &err);
    must(wn_chat_open(&chats[2], model, &(wn_chat_opts){ .source = with_tools }, &err), &err);
    must(wn_tokens_from_text(model, "<|im_start|>", 12, WN_PARSE_SPECIAL | WN_NO_BOS, &ids, &n,
                             &err),
         &err);
    if (n != 1) abort();
    start = ids[0];
    wn_tokens_free(ids);
    return 0;
}

static size_t n_messages(const char *json)
{
    json_t *j = json_loads(json, JSON_ALLOW_NUL, NULL);
    size_t n = json_array_size(j);
    json_decref(j);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size) return 0;
    char *text = malloc(size + 1);
    wn_err err = { 0 };
    wn_chat_text r;
    if (!text) return 0;
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    size_t n = strlen(text);
    const wn_chat *c = chats[*data % 3];
    wn_chat_input in = { .messages_json = text, .tools_json = n + 1 < size ? text + n + 1 : NULL,
                         .now = 1 };
    wn_status st = wn_chat_render(c, &in, &r, &err);
    if (st && strlen(err.text) < 10) abort();
    if (!st) {
        int32_t *ids;
        size_t n_ids, k = 0;
        for (size_t i = 0; i < r.n_plain; i++)
            if (r.plain[i].from >= r.plain[i].to || r.plain[i].to > r.n ||
                (i && r.plain[i].from <= r.plain[i - 1].to))
                abort();
        must(wn_chat_tokens(c, &in, &ids, &n_ids, &err), &err);
        for (size_t i = 0; i < n_ids; i++) k += ids[i] == start;
        if (k != n_messages(text) + 1) abort();
        wn_tokens_free(ids);
    }
    wn_chat_text_release(&r);
    free(text);
    return 0;
}
