/* policy/recipes.c - the table of recipes. */
#include "winnow_policy.h"

#include <string.h>

#define RECIPE(name) extern const wn_recipe wn_recipe_##name;
#include "policy/recipes/list.h"
#undef RECIPE

static const wn_recipe *const recipes[] = {
#define RECIPE(name) &wn_recipe_##name,
#include "policy/recipes/list.h"
#undef RECIPE
};

const wn_recipe *wn_recipe_at(int i)
{
    return i >= 0 && (size_t)i < sizeof recipes / sizeof *recipes ? recipes[i] : NULL;
}

const wn_recipe *wn_recipe_find(const char *name)
{
    for (int i = 0; wn_recipe_at(i); i++)
        if (!strcmp(wn_recipe_at(i)->name, name)) return wn_recipe_at(i);
    return NULL;
}
