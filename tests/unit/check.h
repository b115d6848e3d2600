/* tests/unit/check.h - cmocka, with the headers it wants in the order it wants them. */
#ifndef WN_TEST_CHECK_H
#define WN_TEST_CHECK_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A path for a temporary file of this process; its name ends in `name`. (tests/support/path.c) */
const char *test_path(char *path, size_t size, const char *name);

/* A small seeded generator for tests; print the seed when a random test fails. */
static inline uint64_t test_rand(uint64_t *s)
{
    uint64_t z = (*s += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
/* Uniform in [-1, 1). */
static inline float test_randf(uint64_t *s)
{
    return (float)((double)(test_rand(s) >> 11) * 0x1p-52 - 1.0);
}
#endif
