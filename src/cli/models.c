/* cli/models.c - see models.h.
 *
 * All places are read first (a directory listing each), then names are compared: a name is
 * unambiguous or refused with a list, never a guess.
 */
#include "cli/models.h"

#include "base/alloc.h"
#include "base/err.h"

#include <dirent.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, MAX_DEPTH = 3 };

/* ---- small things about files ------------------------------------------------------------- */

static bool is_dir(const char *path)
{
    struct stat s;
    return !stat(path, &s) && S_ISDIR(s.st_mode);
}

/* dir/name into out; false when it is too long to be a path. */
static bool join(char out[PATH_BYTES], const char *dir, const char *name)
{
    return (size_t)snprintf(out, PATH_BYTES, "%s%s%s", dir, *name ? "/" : "", name) < PATH_BYTES;
}

static bool ends_with(const char *s, size_t n, const char *end)
{
    size_t k = strlen(end);
    return n >= k && !strncasecmp(s + n - k, end, k);
}

/* "x-00002-of-00005": the length of "x", its number and the count; else n itself and 1 of 1. */
static size_t split_name(const char *s, size_t n, int *part, int *parts)
{
    int a, b, len = 0;
    *part = *parts = 1;
    if (n <= 15 || s[n - 15] != '-') return n;
    if (sscanf(s + n - 15, "-%5d-of-%5d%n", &a, &b, &len) != 2 || len != 15 || a < 1 || b < a)
        return n;
    *part = a;
    *parts = b;
    return n - 15;
}

static uint64_t file_bytes(const char *path, int parts)
{
    struct stat s;
    uint64_t sum = 0;
    char one[PATH_BYTES];
    size_t n = strlen(path);
    if (parts == 1) return stat(path, &s) ? 0 : (uint64_t)s.st_size;
    for (int i = 1; i <= parts; i++) {          /* ".../x-00001-of-00005.gguf" */
        snprintf(one, sizeof one, "%.*s-%05d-of-%05d.gguf", (int)(n - 20), path, i, parts);
        if (!stat(one, &s)) sum += (uint64_t)s.st_size;
    }
    return sum;
}

/* ---- the list ------------------------------------------------------------------------------ */

static wn_status add(wn_found_models *f, const char *where, const char *name, const char *path,
                     int parts, wn_err *err)
{
    if (f->n == f->cap) {
        int cap = f->cap ? 2 * f->cap : 32;
        wn_found_model *m = wn_realloc(f->models, sizeof *m * (size_t)cap);
        if (!m) return wn_fail(err, WN_ENOMEM, "models: out of memory");
        f->models = m;
        f->cap = cap;
    }
    wn_found_model *m = &f->models[f->n];
    *m = (wn_found_model){ wn_strdup(name), wn_strdup(path), where, file_bytes(path, parts) };
    f->n++;                                     /* freed with the others, whole or not */
    return m->name && m->path ? WN_OK : wn_fail(err, WN_ENOMEM, "models: out of memory");
}

/* Entries of a directory in the order of their names, without those that begin with a dot.
 * 0 for what cannot be read: a place that is not there holds nothing. */
static int visible(const struct dirent *e) { return e->d_name[0] != '.'; }
static int list(const char *dir, struct dirent ***names)
{
    int n = scandir(dir, names, visible, alphasort);
    return n < 0 ? 0 : n;
}

static void free_list(struct dirent **names, int n)
{
    for (int i = 0; i < n; i++) free(names[i]);
    if (n) free(names);
}

/* A file called name, if it is a model: ".gguf", the first part, and no projector of images. */
static wn_status add_file(wn_found_models *f, const char *where, const char *prefix,
                          const char *path, const char *name, wn_err *err)
{
    char shown[PATH_BYTES];
    int part, parts;
    size_t n = strlen(name);
    if (!ends_with(name, n, ".gguf") || strstr(name, "mmproj")) return WN_OK;
    size_t stem = split_name(name, n - 5, &part, &parts);
    if (part != 1) return WN_OK;
    snprintf(shown, sizeof shown, "%s%.*s", prefix, (int)stem, name);
    return add(f, where, shown, path, parts, err);
}

static wn_status add_tree(wn_found_models *f, const char *where, const char *prefix,
                          const char *dir, int depth, wn_err *err)
{
    struct dirent **names;
    char path[PATH_BYTES];
    wn_status st = WN_OK;
    int n = list(dir, &names);
    for (int i = 0; i < n && !st; i++) {
        if (!join(path, dir, names[i]->d_name)) continue;
        if (!is_dir(path)) st = add_file(f, where, prefix, path, names[i]->d_name, err);
        else if (depth < MAX_DEPTH) st = add_tree(f, where, prefix, path, depth + 1, err);
    }
    free_list(names, n);
    return st;
}

/* ---- the places ------------------------------------------------------------------------------ */

/* rest, in the directory that the variable xdg names or else in its default under $HOME. */
static bool from_home(char out[PATH_BYTES], const char *xdg, const char *under_home,
                      const char *rest)
{
    const char *base = getenv(xdg), *home = getenv("HOME");
    char dir[PATH_BYTES];
    if (base && *base) return join(out, base, rest);
    return home && *home && join(dir, home, under_home) && join(out, dir, rest);
}

static wn_status models_dirs(wn_found_models *f, wn_err *err)
{
    const char *dirs = getenv("WN_MODELS");
    char dir[PATH_BYTES];
    wn_status st = WN_OK;
    if (!dirs || !*dirs) {
        if (!from_home(dir, "XDG_DATA_HOME", ".local/share", "winnow/models")) return WN_OK;
        return add_tree(f, "models directory", "", dir, 0, err);
    }
    while (*dirs && !st) {
        size_t n = strcspn(dirs, ":");
        if (n && n < sizeof dir) {
            snprintf(dir, sizeof dir, "%.*s", (int)n, dirs);
            st = add_tree(f, "models directory", "", dir, 0, err);
        }
        dirs += n + (dirs[n] == ':');
    }
    return st;
}

/* models--OWNER--REPO/snapshots/COMMIT/...: what refs/main names, else the last commit listed. */
static wn_status add_repository(wn_found_models *f, const char *hub, const char *entry, wn_err *err)
{
    char repo[PATH_BYTES], path[PATH_BYTES], dir[PATH_BYTES], commit[128] = "", prefix[512];
    const char *owner = entry + strlen("models--"), *name = strstr(owner, "--");
    struct dirent **names;
    if (!join(repo, hub, entry) || !join(path, repo, "refs/main") || !join(dir, repo, "snapshots"))
        return WN_OK;
    FILE *ref = fopen(path, "r");
    if (ref) {
        if (!fgets(commit, sizeof commit, ref)) commit[0] = '\0';
        fclose(ref);
        commit[strcspn(commit, "\r\n/")] = '\0';
    }
    if (!*commit || !join(path, dir, commit) || !is_dir(path)) {
        int n = list(dir, &names);
        if (!n) return WN_OK;
        bool ok = join(path, dir, names[n - 1]->d_name);
        free_list(names, n);
        if (!ok) return WN_OK;
    }
    if (name) snprintf(prefix, sizeof prefix, "%.*s/%s:", (int)(name - owner), owner, name + 2);
    else snprintf(prefix, sizeof prefix, "%s:", owner);
    return add_tree(f, "Hugging Face", prefix, path, 0, err);
}

static wn_status hugging_face(wn_found_models *f, wn_err *err)
{
    const char *hub = getenv("HF_HUB_CACHE"), *home = getenv("HF_HOME");
    char dir[PATH_BYTES];
    struct dirent **names;
    wn_status st = WN_OK;
    bool ok = hub && *hub ? join(dir, hub, "") : home && *home ? join(dir, home, "hub")
                          : from_home(dir, "XDG_CACHE_HOME", ".cache", "huggingface/hub");
    if (!ok) return WN_OK;
    int n = list(dir, &names);
    for (int i = 0; i < n && !st; i++)
        if (!strncmp(names[i]->d_name, "models--", 8))
            st = add_repository(f, dir, names[i]->d_name, err);
    free_list(names, n);
    return st;
}

static wn_status llama_cpp(wn_found_models *f, wn_err *err)
{
    const char *cache = getenv("LLAMA_CACHE");
    char dir[PATH_BYTES];
    bool ok = cache && *cache ? join(dir, cache, "")
                              : from_home(dir, "XDG_CACHE_HOME", ".cache", "llama.cpp");
    return ok ? add_tree(f, "llama.cpp", "", dir, 0, err) : WN_OK;
}

/* The blob of a manifest's model layer; a manifest of anything else adds nothing. */
static wn_status add_manifest(wn_found_models *f, const char *store, const char *manifest,
                              const char *name, wn_err *err)
{
    json_t *j = json_load_file(manifest, 0, NULL), *layer;
    char path[PATH_BYTES];
    size_t i;
    wn_status st = WN_OK;
    json_array_foreach(json_object_get(j, "layers"), i, layer) {
        const char *type = json_string_value(json_object_get(layer, "mediaType"));
        const char *digest = json_string_value(json_object_get(layer, "digest"));
        if (!type || strcmp(type, "application/vnd.ollama.image.model") || !digest) continue;
        if (strncmp(digest, "sha256:", 7) || strchr(digest, '/')) continue;
        if ((size_t)snprintf(path, sizeof path, "%s/blobs/sha256-%s", store, digest + 7) >=
            sizeof path)
            continue;
        if (!access(path, R_OK)) st = add(f, "Ollama", name, path, 1, err);
        break;
    }
    json_decref(j);
    return st;
}

/* manifests/HOST/NAMESPACE/MODEL/TAG; what its own registry and library hold goes without both. */
static wn_status add_manifests(wn_found_models *f, const char *store, const char *dir,
                               const char *name, int depth, wn_err *err)
{
    struct dirent **names;
    char path[PATH_BYTES], shown[PATH_BYTES];
    wn_status st = WN_OK;
    int n = list(dir, &names);
    for (int i = 0; i < n && !st; i++) {
        const char *entry = names[i]->d_name;
        bool implied = (depth == 0 && !strcmp(entry, "registry.ollama.ai")) ||
                       (depth == 1 && !*name && !strcmp(entry, "library"));
        if (!join(path, dir, entry)) continue;
        snprintf(shown, sizeof shown, "%s%s%s", name,
                 implied || !*name ? ""
                 : depth == 3      ? ":"
                                   : "/",
                 implied ? "" : entry);
        if (depth < 3 && is_dir(path)) st = add_manifests(f, store, path, shown, depth + 1, err);
        else if (depth == 3 && !is_dir(path)) st = add_manifest(f, store, path, shown, err);
    }
    free_list(names, n);
    return st;
}

static wn_status ollama(wn_found_models *f, wn_err *err)
{
    const char *given = getenv("OLLAMA_MODELS"), *home = getenv("HOME");
    char store[PATH_BYTES] = "", dir[PATH_BYTES];
    if (given && *given) join(store, given, "");
    else if (home) join(store, home, ".ollama/models");
    if (!*store || !is_dir(store)) {
        if (given && *given) return WN_OK;
        join(store, "/usr/share/ollama/.ollama/models", "");
    }
    return join(dir, store, "manifests") ? add_manifests(f, store, dir, "", 0, err) : WN_OK;
}

wn_status wn_models_find(wn_found_models *out, wn_err *err)
{
    wn_status (*const places[])(wn_found_models *, wn_err *) = { models_dirs, hugging_face,
                                                                 llama_cpp, ollama };
    wn_status st = WN_OK;
    *out = (wn_found_models){ 0 };
    for (size_t i = 0; i < WN_COUNT(places) && !st; i++) st = places[i](out, err);
    if (st) wn_models_free(out);
    return st;
}

void wn_models_free(wn_found_models *f)
{
    for (int i = 0; i < f->n; i++) {
        wn_free(f->models[i].name);
        wn_free(f->models[i].path);
    }
    wn_free(f->models);
    *f = (wn_found_models){ 0 };
}

/* ---- names ----------------------------------------------------------------------------------- */

/* Is q[0, n) one of the words of s, words being cut at - _ . : and /? */
static bool has_word(const char *s, const char *q, size_t n)
{
    static const char cuts[] = "-_.:/";
    for (const char *p = s; strlen(p) >= n; p++) {
        bool begins = p == s || strchr(cuts, p[-1]), ends = !p[n] || strchr(cuts, p[n]);
        if (begins && ends && !strncasecmp(p, q, n)) return true;
    }
    return false;
}

static bool fits(const wn_found_model *m, const char *q)
{
    const char *colon = strrchr(m->name, ':'), *asked = strrchr(q, ':');
    size_t n = strlen(q);
    if (ends_with(q, n, ".gguf")) n -= 5;
    if (!strncasecmp(m->name, q, n) && !m->name[n]) return true;
    if (!colon) return false;
    size_t head = (size_t)(colon - m->name);
    if (!strcmp(m->where, "Ollama"))
        return !asked && n == head && !strncasecmp(m->name, q, n) &&
               !strcasecmp(colon + 1, "latest");
    /* OWNER/REPO:FILE by its repository, by a word of its file, or by the file alone */
    if (n == head && !strncasecmp(m->name, q, n)) return true;
    if (asked && (size_t)(asked - q) == head && !strncasecmp(m->name, q, head))
        return has_word(colon + 1, asked + 1, strlen(asked + 1));
    return !strncasecmp(colon + 1, q, n) && !colon[1 + n];
}

/* Begins with the same word as q? */
static bool is_near(const wn_found_model *m, const char *q)
{
    char word[64];
    size_t n = strcspn(q, "-_.:/");
    snprintf(word, sizeof word, "%.*s", (int)WN_MIN(n, sizeof word - 1), q);
    return n > 1 && strcasestr(m->name, word);
}

/* A few names for a sentence: those that fit q, or those that are near it. */
static void name_some(const wn_found_models *f, const char *q, bool fitting, char *out, size_t size)
{
    size_t len = 0;
    out[0] = '\0';
    for (int i = 0; i < f->n; i++) {
        const char *name = f->models[i].name;
        if (!(fitting ? fits : is_near)(&f->models[i], q)) continue;
        if (len + strlen(name) + 8 > size) {
            snprintf(out + len, size - len, ", ...");
            break;
        }
        len += (size_t)snprintf(out + len, size - len, "%s%s", len ? ", " : "", name);
    }
}

static wn_status refuse(const wn_found_models *f, const char *q, int n_fits, wn_err *err)
{
    char names[320];
    name_some(f, q, n_fits > 0, names, sizeof names);
    if (n_fits)
        return wn_fail(err, WN_EINVAL, "-m \"%.80s\" fits several models: %s; say which", q, names);
    if (*names)
        return wn_fail(err, WN_EINVAL,
                       "there is no file and no model called \"%.80s\"; near it are %s", q, names);
    return wn_fail(err, WN_EINVAL,
                   "there is no file and no model called \"%.120s\"; winnow models lists the %d "
                   "that were found "
                   "and says where it looks",
                   q, f->n);
}

wn_status wn_models_resolve(const char *name, char **path, wn_err *err)
{
    wn_found_models f;
    const wn_found_model *best = NULL;
    int n_fits = 0;
    wn_status st;
    *path = NULL;
    if (!access(name, F_OK)) {
        *path = wn_strdup(name);
        return *path ? WN_OK : wn_fail(err, WN_ENOMEM, "models: out of memory");
    }
    if ((st = wn_models_find(&f, err))) return st;
    for (int i = 0; i < f.n; i++)
        if (fits(&f.models[i], name) && (!best || !strcmp(f.models[i].where, best->where))) {
            best = &f.models[i];        /* an earlier place goes before a later one */
            n_fits++;
        }
    if (n_fits != 1) st = refuse(&f, name, n_fits, err);
    else if (!(*path = wn_strdup(best->path)))
        st = wn_fail(err, WN_ENOMEM, "models: out of memory");
    wn_models_free(&f);
    return st;
}

wn_status wn_cli_open_model(wn_model **out, const char *name, const wn_model_opts *opts,
                            wn_err *err)
{
    char *path;
    *out = NULL;
    wn_status st = wn_models_resolve(name, &path, err);
    if (!st) st = wn_model_open(out, path, opts, err);
    wn_free(path);
    return st;
}
