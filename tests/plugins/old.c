/* A policy library made for a header that is no more: refused by its version. */
#include <winnow_policy.h>

static const wn_recipe *const recipes[] = { 0 };
extern const wn_policy_plugin winnow_policy_plugin;
const wn_policy_plugin winnow_policy_plugin = { .version = WN_POLICY_VERSION + 1,
                                                .recipes = recipes };
