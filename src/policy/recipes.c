/* policy/recipes.c - the table of recipes: those of list.h, then those of loaded libraries. */
#include "policy/plugin.h"

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
    if (i < 0) return NULL;
    return (size_t)i < WN_COUNT(recipes) ? recipes[i]
                                         : wn_plugin_recipe(i - (int)WN_COUNT(recipes));
}

const wn_recipe *wn_recipe_find(const char *name)
{
    for (int i = 0; wn_recipe_at(i); i++)
        if (!strcmp(wn_recipe_at(i)->name, name)) return wn_recipe_at(i);
    return NULL;
}
