/* policy/stages.c - the table of stages. */
#include "winnow_policy.h"

#include <string.h>

#define STAGE(kind, name) extern const wn_stage wn_stage_##kind##_##name;
#include "policy/stages/list.h"
#undef STAGE

static const wn_stage *const stages[] = {
#define STAGE(kind, name) &wn_stage_##kind##_##name,
#include "policy/stages/list.h"
#undef STAGE
};

static const char *const kinds[WN_STAGE_KINDS] = {
    [WN_STAGE_ALLOC] = "alloc", [WN_STAGE_RETAIN] = "retain", [WN_STAGE_RECOVER] = "recover"
};

const wn_stage *wn_stage_at(int i)
{
    return i >= 0 && (size_t)i < sizeof stages / sizeof *stages ? stages[i] : NULL;
}

const wn_stage *wn_stage_find(wn_stage_kind kind, const char *name)
{
    for (int i = 0; wn_stage_at(i); i++)
        if (wn_stage_at(i)->kind == kind && !strcmp(wn_stage_at(i)->name, name))
            return wn_stage_at(i);
    return NULL;
}

const char *wn_stage_kind_name(int kind)
{
    return kind >= 0 && kind < WN_STAGE_KINDS ? kinds[kind] : NULL;
}
