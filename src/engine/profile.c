/* engine/profile.c - where a policy that asks for the model's profile gets it.
 *
 * A profile is looked for when a sequence's policy needs one and not before: to tell whose it
 * is takes the model's fingerprint, which reads the whole file. One engine reads it once. What
 * decides is then the policy and the profile together; sessions compare both (session.c).
 */
#include "engine/engine.h"
#include "base/alloc.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The end of a path that is too long for a sentence. */
static const char *tail_of(const char *path)
{
    return strlen(path) > 120 ? path + strlen(path) - 120 : path;
}

void wn_engine_profile_path(const wn_model *m, char *buf, size_t n)
{
    snprintf(buf, n, "%s.profile", wn_gguf_path(m->file));
}

static wn_status read_profile(wn_profile **out, const wn_model *m, const char *path,
                              wn_threads *team, wn_err *err)
{
    char beside[4096];
    uint8_t fp[16];
    const char *model = wn_gguf_path(m->file);
    *out = NULL;
    if (!path) {
        wn_engine_profile_path(m, beside, sizeof beside);
        path = beside;
        if (access(path, F_OK))
            return wn_fail(err, WN_EIO, "there is no %s: run `winnow profile %s`", tail_of(path),
                           tail_of(model));
    }
    wn_status st = wn_profile_read(out, path, err);
    if (st) return st;
    wn_model_fingerprint(m, team, fp);
    if (!(st = wn_profile_fits(*out, fp, m->hp.n_layers, m->hp.n_heads, m->map.n_lanes, err)))
        return WN_OK;
    wn_profile_close(*out);
    *out = NULL;
    return wn_fail_prefix(err, st, "%s", tail_of(path));
}

wn_status wn_engine_read_profile(wn_profile **out, const wn_model *m, const char *path, wn_err *err)
{
    return read_profile(out, m, path, NULL, err);
}

void wn_engine_lend_profile(wn_engine *e, const wn_profile *p) { e->lent = p; }

wn_status wn_seq_find_profile(wn_seq *s, wn_err *err)
{
    wn_engine *e = s->e;
    int needs = wn_policy_profile(s->policy);
    wn_status st = WN_OK;
    if (!needs) return WN_OK;
    if (!e->lent && !e->profile)
        st = read_profile(&e->profile, e->m, e->profile_path, e->team, err);
    s->profile = e->lent ? e->lent : e->profile;
    if (!st) st = wn_profile_serves(s->profile, needs, s->policy->recipe->name, err);
    if (!st) return WN_OK;
    s->profile = NULL;
    wn_fail_prefix(err, st, "%.100s goes by a profile of the model", s->policy->text);
    return st;
}
