/* cli/models.h - models by name: what other programs have fetched is used where it lies.
 *
 * -m takes a path, or a name that is looked for in
 *
 *     the models directory   $WN_MODELS (several: separated by ':'), else $XDG_DATA_HOME/winnow/models
 *     Hugging Face's cache   $HF_HUB_CACHE, else $HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub
 *     llama.cpp's cache      $LLAMA_CACHE, else $XDG_CACHE_HOME/llama.cpp
 *     Ollama's store         $OLLAMA_MODELS, else ~/.ollama/models, else /usr/share/ollama/.ollama/models
 *
 * in this order; nothing is copied. Names are compared without regard to case:
 *
 *     qwen3-8b-q4_k_m              a file's name, without ".gguf" and without the count of a split file
 *     Qwen/Qwen3-8B-GGUF           a repository with one model in it
 *     Qwen/Qwen3-8B-GGUF:Q4_K_M    the file of a repository with this in its name
 *     qwen3:8b, qwen3              Ollama's name and tag ("latest" where none is said)
 */
#ifndef WN_CLI_MODELS_H
#define WN_CLI_MODELS_H

#include "winnow.h"

#include <stdint.h>

typedef struct {
    char *name;                 /* to write after -m */
    char *path;                 /* of the file, or of its first part */
    const char *where;          /* "models directory", "Hugging Face", "llama.cpp", "Ollama" */
    uint64_t bytes;             /* of all parts */
} wn_found_model;

typedef struct { wn_found_model *models; int n, cap; } wn_found_models;

/* Everything there is, by place and name. Places that are not there hold nothing. */
wn_status wn_models_find(wn_found_models *out, wn_err *err);
void wn_models_free(wn_found_models *f);

/* What -m says, as a path (wn_free()). A name that fits nothing or several models is
 * WN_EINVAL, with those that come nearest. */
wn_status wn_models_resolve(const char *name, char **path, wn_err *err);
/* wn_model_open() of what -m says. */
wn_status wn_cli_open_model(wn_model **out, const char *name, const wn_model_opts *opts,
                            wn_err *err);

#endif
