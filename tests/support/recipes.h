/* tests/support/recipes.h - recipes that ask for what no method of the table does.
 *
 * "ledger" keeps as many statistics of all queries as there may be, of every kind that h2o does
 * not keep, scores by all of them, and merges: what policies may do to the engine's promises
 * and to the determinism law.
 */
#ifndef WN_TEST_RECIPES_H
#define WN_TEST_RECIPES_H

/* Puts them behind the recipes of the table; once per process. */
void test_recipes_add(void);

#endif
