/* tests/support/profile.h - profiles made up for tests. */
#ifndef WN_TEST_PROFILE_H
#define WN_TEST_PROFILE_H

#include "policy/profile.h"

/* Scores that differ from head to head; lane 1 fetches most. One table, for snapkv at 25 %: each
 * layer's weight is half of the layer's before it. Read back from its own text, as from a file. */
wn_profile *test_profile(int n_layers, int n_heads, int n_lanes, const uint8_t fingerprint[16]);
/* The same with other budgets, for another checksum. */
wn_profile *test_profile_even(int n_layers, int n_heads, int n_lanes,
                              const uint8_t fingerprint[16]);
/* Tables for all recipes that take stages. */
void test_profile_for_all(wn_profile *p);
/* A profile as its file has it and as it is read again. */
wn_profile *test_profile_again(wn_profile *p);

#endif
