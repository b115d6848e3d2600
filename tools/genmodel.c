/* tools/genmodel.c - random-weight models of real shapes from the command line; the work
 * is done by src/gguf/generate.c. */
#include "base/os.h"
#include "gguf/generate.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: genmodel [--shape NAME] [options] --out FILE\n"
    "\n"
    "Writes a GGUF model with random weights: right in shape and size, meaningless as text.\n"
    "\n"
    "  --shape NAME    start from a preset: %s\n"
    "  --arch A        %s\n"
    "  --type T        a tensor type or a mix of them: %s\n"
    "                  (default F16)\n"
    "  --dim N  --layers N  --heads N  --kv N  --hd N  --ffn N  --vocab N  --ctx N\n"
    "  --untied        an output matrix of its own\n"
    "  --ropefreqs     a rope_freqs tensor, as Llama 3.1 has\n"
    "  --experts N  --used N   feed-forward networks of a mixture, and how many a token uses\n"
    "  --window N      positions that sliding-window layers see\n"
    "  --rope-scale X  how much longer contexts are than trained for\n"
    "  --rope-type T   linear, yarn or longrope (default linear)\n"
    "  --rope-ctx N    context before scaling\n"
    "  --rope-dims N   rotated channels of a head\n"
    "  --theta X       base of the rotary frequencies\n"
    "  --name S        general.name\n"
    "  --seed N        another model of the same shape\n"
    "  --threads N     default: all processors\n"
    "\n"
    "example: genmodel --shape 1b --type Q4_K_M --out /tmp/1b-q4km.gguf\n";

static int wrong(const char *what, const char *which)
{
    fprintf(stderr, "genmodel: %s %s (genmodel --help)\n", what, which);
    return 2;
}

/* The field of o that takes an integer, or NULL. */
static int *int_field(wn_generate_opts *o, const char *flag)
{
    const struct { const char *flag; int *p; } fields[] = {
        { "--dim", &o->dim },   { "--layers", &o->n_layers }, { "--heads", &o->n_heads },
        { "--kv", &o->n_kv_heads }, { "--hd", &o->head_dim }, { "--ffn", &o->ffn },
        { "--vocab", &o->vocab },   { "--ctx", &o->n_ctx },
        { "--experts", &o->n_experts }, { "--used", &o->n_used }, { "--window", &o->window },
        { "--rope-ctx", &o->rope_ctx }, { "--rope-dims", &o->rope_dims },
    };
    for (size_t i = 0; i < WN_COUNT(fields); i++)
        if (!strcmp(flag, fields[i].flag)) return fields[i].p;
    return NULL;
}

/* One flag with its value. */
static bool set(wn_generate_opts *o, const char **out, int *threads, const char *flag,
                const char *v)
{
    char *end = "";
    int *field = int_field(o, flag);
    errno = 0;
    if (field || !strcmp(flag, "--threads")) {
        long n = strtol(v, &end, 10);
        if (n < 1 || n > 1 << 30) return false;
        *(field ? field : threads) = (int)n;
    } else if (!strcmp(flag, "--rope-scale")) o->rope_scale = strtof(v, &end);
    else if (!strcmp(flag, "--theta")) o->rope_theta = strtof(v, &end);
    else if (!strcmp(flag, "--seed")) o->seed = strtoull(v, &end, 10);
    else if (!strcmp(flag, "--arch")) o->arch = v;
    else if (!strcmp(flag, "--rope-type")) o->rope_type = v;
    else if (!strcmp(flag, "--type")) o->type = v;
    else if (!strcmp(flag, "--name")) o->name = v;
    else if (!strcmp(flag, "--out")) *out = v;
    else return !strcmp(flag, "--shape");
    return !*end && !errno && end != v;
}

int main(int argc, char **argv)
{
    wn_generate_opts o = { 0 };
    const char *out = NULL;
    int n_threads = wn_os_n_cpus();
    wn_threads *t;
    wn_err err;
    for (int i = 1; i < argc; i++) {        /* the preset first, so that flags may change it */
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            return printf(usage, wn_generate_presets, wn_generate_archs, wn_generate_types) < 0;
        if (!strcmp(argv[i], "--shape") && i + 1 < argc && !wn_generate_preset(&o, argv[i + 1]))
            return wrong("unknown shape", argv[i + 1]);
    }
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--untied")) o.untied = true;
        else if (!strcmp(argv[i], "--ropefreqs")) o.rope_freqs = true;
        else if (i + 1 == argc || !set(&o, &out, &n_threads, argv[i], argv[i + 1]))
            return wrong("cannot use", argv[i]);
        else i++;
    }
    if (!out) return wrong("missing", "--out FILE");
    if (wn_threads_open(&t, n_threads, &err) || wn_generate(out, &o, t, &err)) {
        fprintf(stderr, "genmodel: %s\n", err.text);
        return err.status == WN_EINVAL ? 2 : 1;
    }
    wn_threads_close(t);
    return 0;
}
