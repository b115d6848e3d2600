/* cli/chat_template.h - which template a conversation takes: the model's, or one the user names. */
#ifndef WN_CLI_CHAT_TEMPLATE_H
#define WN_CLI_CHAT_TEMPLATE_H

#include "base/err.h"

#define WN_CLI_TEMPLATE_HELP \
    "chat template instead of the model's: a file with Jinja, or chatml or plain"

/* name: a file, a built-in template, or NULL for the model's own. */
wn_status wn_cli_open_chat(wn_chat **out, const wn_model *m, const char *name, wn_err *err);

#endif
