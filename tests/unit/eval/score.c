/* Scores: a table of answers. Protects: a near miss is a miss, and phrasing costs nothing. */
#include "eval/task.h"
#include "tests/unit/check.h"

typedef struct {
    wn_score_kind kind;
    const char *expect[5];
    const char *answer;
    double score;
} row;

static const row rows[] = {
    /* values: whole words, anywhere, each once */
    { WN_SCORE_VALUES, { "48213" }, " 48213.", 1 },
    { WN_SCORE_VALUES, { "48213" }, "It is (48213), I think.", 1 },
    { WN_SCORE_VALUES, { "48213" }, "482137", 0 },
    { WN_SCORE_VALUES, { "48213" }, "148213", 0 },
    { WN_SCORE_VALUES, { "48213" }, "48213.5", 0 },
    { WN_SCORE_VALUES, { "48213" }, "0.48213", 0 },
    { WN_SCORE_VALUES, { "48213" }, "48 213", 0 },
    { WN_SCORE_VALUES, { "48213" }, "48214", 0 },
    { WN_SCORE_VALUES, { "48213" }, "x48213", 0 },
    { WN_SCORE_VALUES, { "48213" }, "482137 or 48213", 1 },
    { WN_SCORE_VALUES, { "48213" }, "48213\"}", 1 },
    { WN_SCORE_VALUES, { "48213" }, "The key: **48213**", 1 },
    { WN_SCORE_VALUES, { "48213" }, "", 0 },
    { WN_SCORE_VALUES, { "11111", "22222" }, "11111,22222", 1 },
    { WN_SCORE_VALUES, { "11111", "22222" }, "22222", 0.5 },
    { WN_SCORE_VALUES, { "11111", "22222" }, "11111, 11111", 0.5 },
    { WN_SCORE_VALUES, { "11111", "22222", "33333", "44444" }, "44444 and 11111 and 2222", 0.5 },
    { WN_SCORE_VALUES, { "cellar" }, " Cellar.", 1 },
    { WN_SCORE_VALUES, { "cellar" }, "cellars", 0 },
    { WN_SCORE_VALUES, { "tall kettle" }, "the tall kettle", 1 },
    { WN_SCORE_VALUES, { "tall kettle" }, "the tall grey kettle", 0 },
    { WN_SCORE_VALUES, { "mill" }, "m\xc3\xbcmill", 0 },
    /* exact: from the beginning */
    { WN_SCORE_EXACT, { "tall kettle" }, "  tall kettle. Because", 1 },
    { WN_SCORE_EXACT, { " tall kettle " }, "tall kettle", 1 },
    { WN_SCORE_EXACT, { "tall kettle" }, "the tall kettle", 0 },
    { WN_SCORE_EXACT, { "tall kettle" }, "tall kettles", 0 },
    { WN_SCORE_EXACT, { "12345" }, "123456", 0 },
    { WN_SCORE_EXACT, { "12345" }, "12345", 1 },
    { WN_SCORE_EXACT, { "12345" }, "1234", 0 },
    /* digits: how far the copy is right */
    { WN_SCORE_DIGITS, { "1234567890" }, " 1234567890.", 1 },
    { WN_SCORE_DIGITS, { "1234567890" }, "12345 67890", 1 },
    { WN_SCORE_DIGITS, { "1234567890" }, "12345-67890", 1 },
    { WN_SCORE_DIGITS, { "1234567890" }, "It is 1234567890", 1 },
    { WN_SCORE_DIGITS, { "1234567890" }, "12345", 0.5 },
    { WN_SCORE_DIGITS, { "1234567890" }, "1234507890", 0.5 },
    { WN_SCORE_DIGITS, { "1234567890" }, "0234567890", 0 },
    { WN_SCORE_DIGITS, { "1234567890" }, "12345678901234567890", 0.5 },
    { WN_SCORE_DIGITS, { "1234567890" }, "none", 0 },
    /* JSON: the value, not its spelling */
    { WN_SCORE_JSON, { "{\"a\": \"x y\", \"b\": 1}" }, "{\"b\":1,\"a\":\"x y\"}", 1 },
    { WN_SCORE_JSON,
      { "{\"a\": \"x y\", \"b\": 1}" },
      "```json\n{\"a\": \"x y\", \"b\": 1}\n```",
      1 },
    { WN_SCORE_JSON, { "{\"a\": \"x y\", \"b\": 1}" }, "{\"a\": \"x  y\", \"b\": 1}", 0 },
    { WN_SCORE_JSON, { "{\"a\": \"x y\", \"b\": 1}" }, "{\"a\": \"x y\", \"b\": 1", 0 },
    { WN_SCORE_JSON, { "{\"a\": \"x y\", \"b\": 1}" }, "{\"a\": \"x y\", \"b\": 1, \"c\": 2}", 0 },
    { WN_SCORE_JSON, { "{\"a\": \"x y\", \"b\": 1}" }, "", 0 },
    /* lists: distinct and asked for; what is written beside them makes the share smaller */
    { WN_SCORE_LIST, { "red cup", "old map" }, " red cup, old map.", 1 },
    { WN_SCORE_LIST, { "red cup", "old map" }, "1. Red cup\n2. Old map\n", 1 },
    { WN_SCORE_LIST, { "red cup", "old map" }, "red cup and old map", 1 },
    { WN_SCORE_LIST, { "red cup", "old map" }, "red cup, red cup", 0.5 },
    { WN_SCORE_LIST, { "red cup", "old map" }, "red cup, old map, red cup, red cup", 0.5 },
    { WN_SCORE_LIST, { "red cup", "old map" }, "red cup, blue cup, old map, green cup", 0.5 },
    { WN_SCORE_LIST, { "red cup", "old map" }, "red cups, old maps", 0 },
    { WN_SCORE_LIST, { "red cup", "old map" }, ", ,\n- \n", 0 },
};

static void table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const row *r = &rows[i];
        char *expect[5];
        wn_turn t = { .expect = expect, .score = r->kind };
        while (t.n_expect < 5 && r->expect[t.n_expect]) {
            expect[t.n_expect] = (char *)(uintptr_t)r->expect[t.n_expect];
            t.n_expect++;
        }
        double got = wn_turn_score(&t, r->answer);
        if (got < r->score - 1e-9 || got > r->score + 1e-9)
            fail_msg("row %zu: \"%s\" for \"%s\" scores %g, not %g", i, r->answer, r->expect[0],
                     got, r->score);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(table) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
