/* cli/policy.c - see policy.h. A bad policy is a wrong command line; a library that cannot be
 * loaded is work that failed, like a model file. */
#include "cli/policy.h"
#include "cli/cli.h"

#include "winnow_policy.h"

#include <stdio.h>

int wn_cli_policy(const char *command, const char *lib, const char *kv)
{
    wn_err err;
    if (lib && wn_policy_load(lib, &err)) {
        fprintf(stderr, "winnow %s: --policy-lib: %s\n", command, err.text);
        return WN_EXIT_FAILED;
    }
    if (kv && wn_policy_check(kv, &err)) {
        fprintf(stderr, "winnow %s: --kv: %s\n", command, err.text);
        return WN_EXIT_USAGE;
    }
    return WN_EXIT_OK;
}
