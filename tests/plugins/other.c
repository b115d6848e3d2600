/* A library, but not one of policies. */
extern int wn_test_other;
int wn_test_other = 1;
