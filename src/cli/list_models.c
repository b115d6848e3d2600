/* cli/list_models.c - `winnow models`: what -m NAME can mean on this machine. */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/models.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static void print_json(const wn_found_models *f)
{
    json_t *list = json_array();
    for (int i = 0; i < f->n; i++) {
        const wn_found_model *m = &f->models[i];
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:s, s:I}", "name", m->name, "path", m->path,
                                        "where", m->where, "bytes", (json_int_t)m->bytes));
    }
    json_dumpf(list, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(list);
}

static void print_names(const wn_found_models *f)
{
    for (int i = 0; i < f->n; i++) puts(f->models[i].name);
}

static void print_table(const wn_found_models *f)
{
    int width = 4;
    char size[32];
    for (int i = 0; i < f->n; i++)
        width = (int)strlen(f->models[i].name) > width ? (int)strlen(f->models[i].name) : width;
    for (int i = 0; i < f->n; i++) {
        const wn_found_model *m = &f->models[i];
        if (!i || strcmp(m->where, f->models[i - 1].where))
            printf("%s%s\n", i ? "\n" : "", m->where);
        printf("  %-*s %10s\n", width, m->name, wn_args_size((double)m->bytes, size));
    }
    if (!f->n) puts("no models were found; winnow models --help says where winnow looks");
}

/* Only those whose name holds the word. */
static void narrow(wn_found_models *f, const char *word)
{
    int n = 0;
    for (int i = 0; i < f->n; i++) {
        wn_found_model m = f->models[i];
        if (!strcasestr(m.name, word)) continue;
        f->models[i] = f->models[n];            /* a swap: the others are still freed */
        f->models[n++] = m;
    }
    f->n = n;
}

const wn_help_page wn_cli_models_page = {
    .command = "models",
    .summary = "the models on this machine that -m NAME can mean",
    .usage = "[WORD] [options]",
    .about = "Lists the models that were found (with WORD in their name), with the names that -m "
             "takes.\n"
             "Nothing is copied or changed. winnow looks in\n\n"
             "  the models directory    $WN_MODELS, else $XDG_DATA_HOME/winnow/models\n"
             "  Hugging Face's cache    $HF_HUB_CACHE, else $HF_HOME/hub, else "
             "$XDG_CACHE_HOME/huggingface/hub\n"
             "  llama.cpp's cache       $LLAMA_CACHE, else $XDG_CACHE_HOME/llama.cpp\n"
             "  Ollama's store          $OLLAMA_MODELS, else ~/.ollama/models",
    .examples = "winnow run -m Qwen/Qwen3-8B-GGUF:Q4_K_M -p Hello",
};

int wn_cli_models(int argc, char **argv)
{
    bool json = false, names = false;
    const char *word;
    wn_found_models f;
    wn_err err;
    const wn_arg table[] = {
        { 0, "json", WN_ARG_FLAG, &json, NULL, "names, paths, places and bytes as JSON", 0, 0, 0 },
        { 0, "names", WN_ARG_FLAG, &names, NULL, "names alone, one a line", 0, 0, 0 },
    };
    int rc;
    if (!wn_cli_parse(&wn_cli_models_page, table, (int)(sizeof table / sizeof *table), argc,
                      argv, &word, &rc))
        return rc;
    if (wn_models_find(&f, &err)) {
        fprintf(stderr, "winnow models: %s\n", err.text);
        return WN_EXIT_FAILED;
    }
    wn_found_models all = f;
    if (word) narrow(&f, word);
    (json ? print_json : names ? print_names : print_table)(&f);
    wn_models_free(&all);
    return WN_EXIT_OK;
}
