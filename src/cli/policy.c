/* cli/policy.c - see policy.h. A bad policy is a wrong command line; a library that cannot be
 * loaded is work that failed, like a model file. */
#include "cli/policy.h"
#include "cli/cli.h"
#include "cli/io.h"

#include "winnow_policy.h"

#include <stdio.h>

static bool is_format(const char *command, const char *option, const char *name)
{
    char text[64];
    wn_err err;
    snprintf(text, sizeof text, "none,k=%.50s", name);
    if (!wn_policy_check(text, &err)) return true;
    wn_cli_complain(command, "--%s: %s", option, err.text);
    return false;
}

int wn_cli_formats(const char *command, const char *k, const char *v)
{
    return is_format(command, "cache-type-k", k) && is_format(command, "cache-type-v", v)
               ? WN_EXIT_OK
               : WN_EXIT_USAGE;
}

int wn_cli_policy(const char *command, const char *lib, const char *kv)
{
    wn_err err;
    if (lib && wn_policy_load(lib, &err)) {
        wn_cli_complain(command, "--policy-lib: %s", err.text);
        return WN_EXIT_FAILED;
    }
    if (kv && wn_policy_check(kv, &err)) {
        wn_cli_complain(command, "--kv: %s", err.text);
        return WN_EXIT_USAGE;
    }
    return WN_EXIT_OK;
}
