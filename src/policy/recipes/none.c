/* policy/recipes/none.c - the full cache: the reference for everything. */
#include "winnow_policy.h"

const wn_recipe wn_recipe_none = {
    .name = "none", .family = "reference", .source = "-",
    .about = "Keeps every token. The reference that other policies are compared with.",
    .cost = "nothing",
    .kind = WN_CLASS_FULL, .resume = WN_RESUME_ANY,
    .at = WN_AT_BOUNDARY | WN_AT_MARK, .at_default = WN_AT_BOUNDARY,
};
