/* policy/stages/ends.c - the first slots and the last ones, inside a budget. */
#include "policy/stages/stages.h"

void wn_stage_ends(const wn_view *v, int64_t left, int *sinks, int *cut)
{
    int n = wn_view_n_tokens(v), want = *sinks;
    for (int i = 0; i < n; i++) left -= wn_view_protects(v, i);
    for (*sinks = 0; *sinks < want && (left > 1 || wn_view_protects(v, *sinks)); ++*sinks)
        left -= !wn_view_protects(v, *sinks);       /* the last slot is the window's */
    for (*cut = n; *cut > *sinks && (left > 0 || wn_view_protects(v, *cut - 1)); --*cut)
        left -= !wn_view_protects(v, *cut - 1);
}
