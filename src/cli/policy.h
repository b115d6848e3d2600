/* cli/policy.h - policies on a command line: --policy-lib and --kv. */
#ifndef WN_CLI_POLICY_H
#define WN_CLI_POLICY_H

/* Loads a library of recipes and then looks whether kv is a policy (both may be NULL): before a
 * model is, which may take minutes. Returns 0, or prints a sentence and returns the exit status. */
int wn_cli_policy(const char *command, const char *lib, const char *kv);

/* The same for -ctk and -ctv: WN_EXIT_USAGE with the formats there are. */
int wn_cli_formats(const char *command, const char *k, const char *v);

#define WN_CLI_TYPE_K_HELP \
    "format of the keys: f16, q8_0, q4 ...; winnow recipes lists them (default f16).\n\
Layers and heads of their own: --kv 'none,k=q4,k[0,-1]=f16'"
#define WN_CLI_TYPE_V_HELP "format of the values (default f16)"
#define WN_CLI_POLICY_LIB_HELP \
    "library with more recipes (examples/policy.c); it is code and runs with your rights"

#define WN_CLI_PROFILE_HELP \
    "winnow profile's file, for policies that go by it (default: the model's path and .profile)"
#define WN_CLI_CALIBRATION_HELP                                                                \
    "winnow calibrate's file, for cache formats that go by it (default: the model's path and " \
    ".calibration)"

#endif
