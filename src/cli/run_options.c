/* cli/run_options.c - what the command line of `winnow run` means: see run.h.
 *
 * The table says what an option fills in and what numbers it takes; check() says what a table
 * cannot. Both refuse before a model is opened, which may take minutes.
 */
#include "cli/chat_template.h"
#include "cli/cli.h"
#include "cli/policy.h"
#include "cli/run.h"

const wn_help_page wn_cli_run_page = {
    .command = "run",
    .summary = "read a prompt, continue it",
    .usage = "-m MODEL [-p TEXT | -f FILE] [options]",
    .about = "Reads a prompt, continues it, prints the text as it comes; timings and memory go to\n"
             "standard error. Every option has an environment twin: --top-k is WN_TOP_K.",
    .examples = "winnow run -m models/winnow-demo.gguf -f book.txt -p $'\\n\\nQuestion: Who found "
                "the silver key?\\nAnswer: ' "
                "-n 32 --temp 0",
};

static int usage(const char *says)
{
    fprintf(stderr, "winnow run: %s\n", says);
    return WN_EXIT_USAGE;
}

/* What the table cannot say: options that need or exclude each other; texts that must be
 * understood. */
static int check(const wn_run_options *o)
{
    int rc;
    if (!o->model) return usage("which model? give -m FILE (a GGUF file)");
    if (o->tokens_file && (o->protect.n || o->span.n))
        return usage("--protect and --span name bytes of a text, and --tokens has none");
    if (o->tokens_file && (o->prompt || o->file))
        return usage("--tokens takes the place of -p and -f; give one or the other");
    if (o->chat && (o->tokens_file || o->parse_special || o->no_bos || o->protect.n || o->span.n))
        return usage("--chat lets the model's template make the prompt; --tokens, --parse-special, "
                     "--no-bos, "
                     "--protect and --span do not go with it");
    if (!o->chat && o->system) return usage("--system goes with --chat");
    if (!o->chat && o->template) return usage("--template goes with --chat");
    if ((rc = wn_cli_policy("run", o->lib, o->kv)) ||
        (rc = wn_cli_formats("run", o->k_type, o->v_type)))
        return rc;
    if (o->trace_rows && !o->trace)
        return usage("--trace-rows says what goes into a trace; name its file with --trace");
    return 0;
}

/* What the table below fills in; a process reads one command line. */
static const char *protect_items[WN_RUN_RANGES], *span_items[WN_RUN_RANGES];
static wn_run_options o = {
    .protect = { protect_items, 0, WN_RUN_RANGES }, .span = { span_items, 0, WN_RUN_RANGES },
    .n_predict = -1, .seed = -1, .k_type = "f16", .v_type = "f16",
};

static const wn_arg table[] = {
    { 0, "Model and prompt", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
    { 'm', "model", WN_ARG_STRING, &o.model, "MODEL",
      "GGUF file, or the first part of a split one, or the name of a model (winnow models)", 0,
      0, 0 },
    { 'p', "prompt", WN_ARG_STRING, &o.prompt, "TEXT",
      "the prompt; after the text of -f when both are given", 0, 0, 0 },
    { 'f', "file", WN_ARG_STRING, &o.file, "FILE",
      "prompt from a file (- for standard input, also the default)", 0, 0, 0 },
    { 0, "tokens", WN_ARG_STRING, &o.tokens_file, "FILE",
      "prompt as int32 token ids (little-endian) instead of text", 0, 0, 0 },
    { 0, "chat", WN_ARG_FLAG, &o.chat, NULL,
      "the prompt is a user's message: put it into the model's chat form", 0, 0, 0 },
    { 0, "system", WN_ARG_STRING, &o.system, "TEXT", "with --chat: the system message", 0, 0,
      0 },
    { 0, "template", WN_ARG_STRING, &o.template, "FILE", WN_CLI_TEMPLATE_HELP, 0, 0, 0 },
    { 0, "parse-special", WN_ARG_FLAG, &o.parse_special, NULL,
      "special tokens spelled in the prompt are meant", 0, 0, 0 },
    { 0, "no-bos", WN_ARG_FLAG, &o.no_bos, NULL,
      "do not add the tokens the model asks for around a prompt", 0, 0, 0 },
    { 0, "Generation", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
    { 'n', "n-predict", WN_ARG_INT, &o.n_predict, "N",
      "tokens to generate (default -1: to the end token or the context)", -1, 1e9, "predict" },
    { 's', "seed", WN_ARG_INT, &o.seed, "N",
      "of the random numbers; -1: a new one, printed (default)", -1, 4294967295.0, 0 },
    { 0, "temp", WN_ARG_FLOAT, &o.temp, "X", "temperature; 0 is greedy (default 0.8)", 0, 100,
      0 },
    { 0, "top-k", WN_ARG_INT, &o.top_k, "N", "the N most likely tokens; 0: all (default 40)", 0,
      1e9, 0 },
    { 0, "top-p", WN_ARG_FLOAT, &o.top_p, "X",
      "the most likely tokens that sum to X (default 0.95)", 0, 1, 0 },
    { 0, "min-p", WN_ARG_FLOAT, &o.min_p, "X",
      "tokens at least X times as likely as the first (default 0.05)", 0, 1, 0 },
    { 0, "repeat-penalty", WN_ARG_FLOAT, &o.repeat, "X",
      "divides the logits of recent tokens; 1: off (default)", 1e-3, 100, 0 },
    { 0, "presence-penalty", WN_ARG_FLOAT, &o.presence, "X",
      "taken from the logits of recent tokens (default 0)", -100, 100, 0 },
    { 0, "frequency-penalty", WN_ARG_FLOAT, &o.frequency, "X",
      "the same, times how often each occurred (default 0)", -100, 100, 0 },
    { 0, "repeat-last-n", WN_ARG_INT, &o.last_n, "N",
      "how many tokens count as recent; -1: all (default 64)", -1, 1e9, 0 },
    { 0, "logit-bias", WN_ARG_STRING, &o.bias, "ID:X,..", "added to the logits of these tokens",
      0, 0, 0 },
    { 0, "ignore-eos", WN_ARG_FLAG, &o.ignore_eos, NULL, "go on after an end token", 0, 0, 0 },
    { 0, "Cache and memory", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
    { 'c', "ctx-size", WN_ARG_INT, &o.n_ctx, "N",
      "longest text, prompt and answer (default: what the model was trained for)", 0, 1e9, 0 },
    { 0, "mem", WN_ARG_BYTES, &o.mem, "SIZE",
      "ceiling for everything: weights, cache, scratch (default: 80 % of what is\navailable); "
      "6GiB, 900M",
      0, 0, 0 },
    { 0, "kv", WN_ARG_STRING, &o.kv, "POLICY",
      "what the cache keeps, e.g. 'snapkv@25%' (default none: everything);\nwinnow recipes "
      "lists what there is",
      0, 0, 0 },
    { 0, "protect", WN_ARG_LIST, &o.protect, "RANGE",
      "bytes FROM-TO of the prompt (the first is 0) that stay in the cache whatever "
      "the\npolicy; may be given many times",
      0, 0, 0 },
    { 0, "span", WN_ARG_LIST, &o.span, "RANGE",
      "bytes FROM-TO of the prompt are one span, an example or an instruction, for policies "
      "that\nlook at spans; may be given many times; without it messages and paragraphs are",
      0, 0, 0 },
    { 0, "profile", WN_ARG_STRING, &o.profile, "FILE", WN_CLI_PROFILE_HELP, 0, 0, 0 },
    { 0, "calibration", WN_ARG_STRING, &o.calibration, "FILE", WN_CLI_CALIBRATION_HELP, 0, 0,
      0 },
    { 0, "policy-lib", WN_ARG_STRING, &o.lib, "FILE", WN_CLI_POLICY_LIB_HELP, 0, 0, 0 },
    { 0, "cache-type-k", WN_ARG_STRING, &o.k_type, "TYPE", WN_CLI_TYPE_K_HELP, 0, 0, "-ctk" },
    { 0, "cache-type-v", WN_ARG_STRING, &o.v_type, "TYPE", WN_CLI_TYPE_V_HELP, 0, 0, "-ctv" },
    { 0, "page-slots", WN_ARG_INT, &o.page_slots, "N",
      "slots of a page: 4 to 64, a power of two (default 64)", 0, 64, 0 },
    { 0, "session", WN_ARG_STRING, &o.session, "FILE",
      "continue from this file where the prompt agrees with it, and save to it", 0, 0, 0 },
    { 0, "session-read-only", WN_ARG_FLAG, &o.session_ro, NULL, "do not write the session file",
      0, 0, 0 },
    { 0, "Machine", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
    { 't', "threads", WN_ARG_INT, &o.threads, "N",
      "threads (default: all processors); changes no output", 0, 256, 0 },
    { 'b', "batch-size", WN_ARG_INT, &o.batch, "N",
      "rows of one pass (default 512); changes no output", 0, 4096, 0 },
    { 0, "ubatch-size", WN_ARG_INT, &o.batch, "N", "the same", 0, 4096, "-ub" },
    { 0, "no-repack", WN_ARG_FLAG, &o.no_repack, NULL,
      "leave quantised weights mapped: loads at once, runs slower, same output", 0, 0, 0 },
    { 0, "Output", WN_ARG_HEADING, 0, 0, 0, 0, 0, 0 },
    { 0, "json", WN_ARG_FLAG, &o.json, NULL, "one JSON line at the end instead of text", 0, 0,
      0 },
    { 0, "echo", WN_ARG_FLAG, &o.echo, NULL, "print the text of -p first", 0, 0, 0 },
    { 0, "special", WN_ARG_FLAG, &o.special, NULL, "show special tokens", 0, 0, 0 },
    { 'q', "quiet", WN_ARG_FLAG, &o.quiet, NULL, "no timings, no progress", 0, 0, 0 },
    { 0, "trace", WN_ARG_STRING, &o.trace, "FILE",
      "write what the policy saw and decided, for winnow replay", 0, 0, 0 },
    { 0, "trace-rows", WN_ARG_FLAG, &o.trace_rows, NULL,
      "with keys, values and queries, for replays of any policy (large)", 0, 0, 0 },
    { 0, "explain", WN_ARG_STRING, &o.explain, "RANGE",
      "say what became of positions FROM-TO, or of a text in the prompt", 0, 0, 0 },
    { 0, "dump-logits", WN_ARG_STRING, &o.dump, "FILE",
      "float32 logits of every position computed, (tokens, vocabulary)", 0, 0, 0 },
};

static void set_sampling_defaults(void)
{
    wn_sampling d = wn_sampling_defaults();
    o.temp = (double)d.temperature;
    o.top_k = d.top_k;
    o.top_p = (double)d.top_p;
    o.min_p = (double)d.min_p;
    o.last_n = d.penalty_last_n;
    o.repeat = (double)d.repeat_penalty;
}

bool wn_run_parse(int argc, char **argv, const wn_run_options **out, int *rc)
{
    const char *word;
    *out = &o;
    set_sampling_defaults();
    if (!wn_cli_parse(&wn_cli_run_page, table, (int)WN_COUNT(table), argc, argv, &word, rc))
        return false;
    if (word && !o.model) o.model = word;
    else if (word) {
        fprintf(stderr, "winnow run: \"%.60s\" is not an option; the prompt is given with -p\n",
                word);
        *rc = WN_EXIT_USAGE;
        return false;
    }
    return !(*rc = check(&o));
}
