/* cli/policy.h - policies on a command line: --policy-lib and --kv. */
#ifndef WN_CLI_POLICY_H
#define WN_CLI_POLICY_H

/* Loads a library of recipes and then looks whether kv is a policy (both may be NULL): before
 * a model is, which may take minutes. Returns 0, or prints a sentence and returns the exit status. */
int wn_cli_policy(const char *command, const char *lib, const char *kv);

#define WN_CLI_POLICY_LIB_HELP "library with more recipes (examples/policy.c); it is code and runs with your rights"

#define WN_CLI_PROFILE_HELP "winnow profile's file, for policies that go by it (default: the model's path and .profile)"

#endif
