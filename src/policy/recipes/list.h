/* policy/recipes/list.h - every recipe, one line each. */
RECIPE(none)
RECIPE(keepall)
RECIPE(random)
RECIPE(recent)
