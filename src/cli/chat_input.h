/* cli/chat_input.h - messages from a terminal, with editing and history, or from a pipe.
 *
 * A line is a message. One that ends with a backslash goes on in the next line; """ (or ```)
 * alone in a line begins a text of several lines that the same mark ends, fences kept.
 */
#ifndef WN_CLI_CHAT_INPUT_H
#define WN_CLI_CHAT_INPUT_H

#include "base/err.h"

typedef struct wn_input wn_input;

/* terminal: line editing by libedit; the history is in $XDG_STATE_HOME/winnow/history. */
wn_status wn_input_open(wn_input **out, bool terminal, wn_err *err);
void wn_input_close(wn_input *in);
/* The next message, the caller's to wn_free(); NULL at the end. */
char *wn_input_message(wn_input *in);

#endif
