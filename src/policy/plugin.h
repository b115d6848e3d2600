/* policy/plugin.h - recipes of loaded libraries, behind those of the table. */
#ifndef WN_POLICY_PLUGIN_H
#define WN_POLICY_PLUGIN_H

#include "base/err.h"
#include "winnow_policy.h"

const wn_recipe *wn_plugin_recipe(int i);       /* NULL past the last */

#endif
