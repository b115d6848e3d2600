/* A record is whole or refused: every cut, every flipped byte, another kind; an aborted
 * write leaves the old file. */
#include "tests/unit/check.h"

#include "store/record.h"

#include <unistd.h>

static char path[128];
static const wn_record_id id = { .fingerprint = { 1, 2, 3 }, .numerics = "scalar/1" };

static void write_one(const char *payload, size_t n, bool commit)
{
    wn_record_writer *w;
    wn_err err = { 0 };
    assert_int_equal(wn_record_begin(&w, path, WN_RECORD_SESSION, &id, &err), WN_OK);
    assert_int_equal(wn_record_write(w, payload, n / 2, &err), WN_OK);
    assert_int_equal(wn_record_write(w, payload + n / 2, n - n / 2, &err), WN_OK);
    if (commit) assert_int_equal(wn_record_commit(w, &err), WN_OK);
    else wn_record_abort(w);
}

static size_t slurp(uint8_t *buf, size_t cap)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(buf, 1, cap, f);
    fclose(f);
    return n;
}

static void round_trip(void **state)
{
    (void)state;
    wn_record r;
    wn_err err = { 0 };
    char got[5];
    write_one("hello", 5, true);
    assert_int_equal(wn_record_open(&r, path, WN_RECORD_SESSION, &err), WN_OK);
    assert_memory_equal(r.id.fingerprint, id.fingerprint, 16);
    assert_string_equal(r.id.numerics, "scalar/1");
    assert_int_equal(wn_record_read(&r, got, 5, &err), WN_OK);
    assert_memory_equal(got, "hello", 5);
    assert_int_equal(wn_record_read(&r, got, 1, &err), WN_EFORMAT);
    wn_record_close(&r);
}

static void damage_is_refused(void **state)
{
    (void)state;
    uint8_t buf[256];
    wn_record r;
    wn_err err = { 0 };
    write_one("some payload bytes", 18, true);
    size_t n = slurp(buf, sizeof buf);
    assert_int_equal(n, 96 + 18);
    for (size_t cut = 0; cut < n; cut++)
        assert_int_not_equal(wn_record_open_memory(&r, buf, cut, WN_RECORD_SESSION, &err), WN_OK);
    for (size_t i = 0; i < n; i++) {
        buf[i] ^= 0x20;
        assert_int_not_equal(wn_record_open_memory(&r, buf, n, WN_RECORD_SESSION, &err), WN_OK);
        buf[i] ^= 0x20;
    }
    assert_int_equal(wn_record_open_memory(&r, buf, n, 99, &err), WN_EFORMAT);
    assert_int_equal(wn_record_open_memory(&r, buf, n, WN_RECORD_SESSION, &err), WN_OK);
}

/* A session as it was written before statistics went with their slots. */
static void another_version_is_refused(void **state)
{
    (void)state;
    uint8_t buf[256];
    wn_record r;
    wn_err err = { 0 };
    write_one("some payload bytes", 18, true);
    size_t n = slurp(buf, sizeof buf);
    assert_int_equal(buf[8], WN_RECORD_VERSION_SESSION);
    buf[8] = 3;
    assert_int_equal(wn_record_open_memory(&r, buf, n, WN_RECORD_SESSION, &err), WN_EUNSUPPORTED);
    assert_string_equal(err.text, "session version 3, this program reads version 4: it has to be "
                                  "made anew");
}

static void an_aborted_write_leaves_the_old_file(void **state)
{
    (void)state;
    uint8_t a[256], b[256];
    write_one("first", 5, true);
    size_t n = slurp(a, sizeof a);
    write_one("second", 6, false);
    assert_int_equal(slurp(b, sizeof b), n);
    assert_memory_equal(a, b, n);
}

int main(void)
{
    test_path(path, sizeof path, "record");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(damage_is_refused),
        cmocka_unit_test(another_version_is_refused),
        cmocka_unit_test(an_aborted_write_leaves_the_old_file),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return rc;
}
