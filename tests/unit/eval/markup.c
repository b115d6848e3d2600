/* Turns read off chat templates: a conversation put together from the pieces is the one that the
 * template writes, for templates of each kind there is. */
#include "eval/markup.h"
#include "tests/unit/check.h"

static wn_model *model;

static size_t quarter(void *ctx, const char *text, size_t n)
{
    (void)ctx;
    (void)text;
    return (n + 3) / 4;
}

static const char chatml[] =
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' "
    "}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
/* System text inside the first message of the user; answers end with a token that the next message
 * begins behind. */
static const char inst[] =
    "{% if messages[0].role == 'system' %}{% set sys = '<<SYS>>\n' + messages[0].content + "
    "'\n<</SYS>>\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set sys = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if m.role == 'user' %}{{ '[INST] ' + (sys if loop.first else '') + "
    "m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + ' </s>' }}{% endif %}{% endfor %}";
/* No system message at all, and contents are trimmed. */
static const char refuses[] =
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% "
    "endif %}"
    "{% for m in messages %}{{ '<start>' + ('model' if m.role == 'assistant' else 'user') + '\n' + "
    "m.content | trim + '<end>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start>model\n' }}{% endif %}";
/* Drops system messages, says something first of all, and writes the date. */
static const char drops[] = "{{ 'Today is ' + strftime_now('%Y-%m-%d') + '.\n' }}{% for m in "
                            "messages %}{% if m.role != 'system' %}"
                            "{{ m.role | upper + ': ' + m.content + '\n' }}{% endif %}{% endfor "
                            "%}{% if add_generation_prompt %}{{ 'ASSISTANT: ' }}{% endif %}";
/* Answers are thought over, and earlier thoughts left out. */
static const char thinks[] =
    "{% for m in messages %}{{ '<|' + m.role + '|>' }}{% if m.role == 'assistant' %}{{ '<|final|>' "
    "}}{% endif %}{{ m.content + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}";

/* Two special tokens end alike: a message of the user does not begin inside one. */
static const char alike[] =
    "{% for m in messages %}{{ m.role + '\n' + m.content + ('<|im_start|>\n' if m.role == "
    "'assistant' else '<|im_end|>\n') }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant\n' }}{% endif %}";

static char *put(char *to, const char *s) { return to + sprintf(to, "%s", s); }

/* As a case does it (eval/draft.c): two turns of a user, and the beginning of an answer. */
static void assemble(char *to, const wn_markup *m, const char *const says[3])
{
    to = put(to, m->begin);
    if (*m->system_text) to = put(put(put(to, m->system_prefix), m->system_text), m->system_suffix);
    to = put(put(put(put(put(to, m->user_prefix), says[0]), m->user_suffix), m->assistant_prefix),
             says[1]);
    to = put(put(put(put(put(to, m->assistant_suffix), m->user_prefix), says[2]), m->user_suffix),
             m->assistant_prefix);
}

/* The template's own text of the same, up to the answer it begins; system: it has that message,
 * too. */
static void check(const char *source, bool system, const char *user, const char *stop,
                  const char *begins)
{
    static const char *const says[3] = { "Where is the\n\nlantern?", "In the cellar.",
                                         "And the bell?" };
    const char *family = "base";
    char mine[2000];
    wn_phrases *p;
    wn_chat *c;
    wn_chat_text t;
    wn_err err;
    if (wn_phrases_open_for(&p, &family, NULL, model, &err) ||
        wn_chat_open(&c, model, &(wn_chat_opts){ .source = source }, &err) ||
        wn_markup_learn(p, model, c, &err))
        fail_msg("%s", err.text);
    const wn_markup *m = wn_phrases_markup(p);
    assert_ptr_not_equal(wn_phrases_talk(p), m);
    assert_string_equal(wn_phrases_talk(p)->user_prefix, m->user_prefix);
    const wn_message talk[] = { { "system", m->system_text },
                                { "user", says[0] },
                                { "assistant", says[1] },
                                { "user", says[2] } };
    wn_chat_input in = { .messages = talk + !system, .n_messages = 4 - !system, .now = 1735689600,
                         .no_generation_prompt = true };
    assert_int_equal(system, *m->system_text != '\0');
    assert_int_equal(wn_chat_render(c, &in, &t, &err), WN_OK);
    assemble(mine, m, says);
    if (strncmp(mine, t.text, t.n)) fail_msg("%s\n---\n%s", mine, t.text);
    assert_string_equal(mine + t.n, begins);
    assert_string_equal(m->user_prefix, user);
    assert_string_equal(m->stop, stop);
    wn_chat_text_release(&t);
    wn_chat_close(c);
    wn_phrases_close(p);
}

static void pieces_make_the_templates_text(void **state)
{
    (void)state;
    check(chatml, true, "<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>user",
          "<|im_start|>assistant\n");
    check(inst, true, "", " </s>[INST]", " ");
    check(refuses, false, "<start>user\n", "<end>\n<start>user", "<start>model\n");
    check(drops, false, "USER: ", "\nUSER:", "ASSISTANT: ");
    check(thinks, true, "<|end|><|user|>", "<|end|><|user|>", "<|assistant|><|final|>");
    check(alike, true, "\nuser\n", "<|im_start|>\nuser", "assistant\n");
    check(wn_chat_builtin("plain"), true, "\n\nUser: ", "\n\nUser:", "Assistant: ");
}

/* Texts of the tasks have it all, and a lead follows without a space of ours. */
static void cases_are_in_the_models_turns(void **state)
{
    (void)state;
    const char *family = "model";
    wn_phrases *p;
    wn_case k;
    wn_err err;
    if (wn_phrases_open_for(&p, &family, NULL, model, &err)) fail_msg("%s", err.text);
    for (int i = 0; wn_tasks[i]; i++) {
        wn_case_opts o = { .seed = 1, .n_tokens = 900, .depth = wn_tasks[i]->has_depth ? 0.5 : -1,
                           .count = quarter };
        if (wn_tasks[i]->make(&k, p, &o, &err)) fail_msg("%s: %s", wn_tasks[i]->name, err.text);
        if (strncmp(k.context, "<|im_start|>system\nYou are", 26))
            fail_msg("%s begins with %.60s", wn_tasks[i]->name, k.context);
        const char *asked = strstr(k.turns[0].ask, "<|im_end|>\n<|im_start|>assistant\n");
        bool raw = wn_phrases_optional(p, wn_tasks[i]->name, "ask") != NULL;
        if (!raw && (!asked || asked[33] == ' '))
            fail_msg("%s asks %s", wn_tasks[i]->name, k.turns[0].ask);
        wn_case_release(&k);
    }
    wn_chat *c;
    wn_case_opts o = { .seed = 1, .n_tokens = 900, .depth = 0.5, .count = quarter };
    if (wn_chat_open(&c, model, &(wn_chat_opts){ .source = thinks }, &err) ||
        wn_markup_learn(p, model, c, &err) || wn_tasks[0]->make(&k, p, &o, &err))
        fail_msg("%s", err.text);
    const char *asked = strstr(k.turns[0].ask, "<|final|>");
    if (!asked || asked[9] == ' ') fail_msg("%s asks %s", wn_tasks[0]->name, k.turns[0].ask);
    wn_case_release(&k);
    wn_chat_close(c);
    wn_phrases_close(p);
}

/* What no conversation can be read off is refused, and the other ways are named. */
static void others_are_refused(void **state)
{
    (void)state;
    static const char *const source[] = {
        "{{ messages[-1].content }}",
        "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
        "{% for m in messages | reverse %}{{ m.content }}\n{% endfor %}",
        "{{ raise_exception('closed') }}",
    };
    const char *family = "base";
    wn_phrases *p;
    wn_chat *c;
    wn_err err;
    if (wn_phrases_open_for(&p, &family, NULL, model, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < WN_COUNT(source); i++) {
        if (wn_chat_open(&c, model, &(wn_chat_opts){ .source = source[i] }, &err))
            fail_msg("%s", err.text);
        assert_int_equal(wn_markup_learn(p, model, c, &err), WN_EUNSUPPORTED);
        assert_non_null(strstr(err.text, "--template base"));
        assert_int_equal(strstr(err.text, "closed") != NULL, i == 3);
        wn_chat_close(c);
    }
    wn_phrases_close(p);
}

int main(void)
{
    wn_err err;
    if (wn_model_open(&model, "models/winnow-demo.gguf", &(wn_model_opts){ .n_threads = 1 },
                      &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_make_the_templates_text),
        cmocka_unit_test(cases_are_in_the_models_turns),
        cmocka_unit_test(others_are_refused),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    wn_model_close(model);
    return failed;
}
