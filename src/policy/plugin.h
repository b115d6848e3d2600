/* policy/plugin.h - recipes of loaded libraries, behind those of the table. */
#ifndef WN_POLICY_PLUGIN_H
#define WN_POLICY_PLUGIN_H

#include "base/err.h"
#include "winnow_policy.h"

const wn_recipe *wn_plugin_recipe(int i);       /* NULL past the last */
/* What wn_policy_load() does with the library's symbol; path for error messages (tests, which
 * bring their recipes themselves). */
wn_status wn_plugin_add(const char *path, const wn_policy_plugin *g, wn_err *err);

#endif
