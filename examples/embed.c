/* examples/embed.c - the whole library in one screen: open a model, ask it something,
 * print the answer as it comes.
 *
 *     cc examples/embed.c $(pkg-config --cflags --libs --static winnow) -o embed
 *     ./embed models/winnow-demo.gguf "Felix found the silver key." "Who found the silver key?"
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <winnow.h>

static void must(wn_status st, const wn_err *err)
{
    if (st == WN_OK) return;
    fprintf(stderr, "embed: %s\n", err->text);
    exit(1);
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "models/winnow-demo.gguf";
    const char *fact = argc > 2 ? argv[2] : "Felix found the silver key.";
    const char *question = argc > 3 ? argv[3] : "Who found the silver key?";
    char prompt[4096];
    wn_err err;
    wn_model *model;
    wn_engine *engine;
    wn_seq *seq;
    wn_sampler *sampler;
    wn_text *text;
    int32_t *ids, id;
    size_t n;

    must(wn_model_open(&model, path, NULL, &err), &err);
    snprintf(prompt, sizeof prompt,
             "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
             "%s\n\n%s<|im_end|>\n<|im_start|>assistant\n",
             fact, question);
    must(wn_tokens_from_text(model, prompt, strlen(prompt), WN_PARSE_SPECIAL, &ids, &n, &err),
         &err);

    /* The engine takes its memory here; the sequence is promised room for prompt and answer. */
    int room = (int)n + 64;
    must(wn_engine_open(&engine, model, &(wn_engine_opts){ .pool_tokens = room }, &err), &err);
    must(wn_seq_open(&seq, engine, &(wn_seq_opts){ .max_tokens = room }, &err), &err);
    wn_sampling greedy = wn_sampling_defaults();
    greedy.temperature = 0;
    wn_model_info info;
    wn_model_get_info(model, &info);
    must(wn_sampler_open(&sampler, &greedy, info.n_vocab, &err), &err);
    must(wn_text_open(&text, model, 0, &err), &err);

    must(wn_seq_feed(seq, ids, n, &err), &err);
    for (int i = 0; i < 64; i++) {
        while (!wn_seq_logits(seq)) must(wn_engine_step(engine, NULL, &err), &err);
        must(wn_sampler_pick(sampler, wn_seq_logits(seq), wn_seq_tokens(seq), wn_seq_n_tokens(seq),
                             &id, &err),
             &err);
        if (wn_model_is_end(model, id)) break;
        fputs(wn_text_push(text, id, NULL), stdout);
        fflush(stdout);
        if (i < 63) must(wn_seq_feed(seq, &id, 1, &err), &err);
    }
    puts(wn_text_end(text, NULL));

    wn_text_close(text);
    wn_sampler_close(sampler);
    wn_seq_close(seq);
    wn_engine_close(engine);
    wn_tokens_free(ids);
    wn_model_close(model);
    return 0;
}
