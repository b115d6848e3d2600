/* tests/support/stays.h - which positions of a lane a plan leaves, in one line. */
#ifndef WN_TEST_STAYS_H
#define WN_TEST_STAYS_H

#include "tests/support/view.h"
#include "tests/unit/check.h"

/* Exactly the positions of the list, which -1 ends. */
static inline void check_stays(const test_view *t, int lane, const int *list)
{
    for (int p = 0; p < t->view.n_tokens; p++) {
        bool listed = *list == p;
        if (test_view_stays(t, lane, p) != listed)
            fail_msg("%s: position %d of lane %d %s", t->policy.text, p, lane,
                     listed ? "is gone" : "stays");
        list += listed;
    }
    assert_int_equal(*list, -1);
}
#define STAYS(t, lane, ...) check_stays(t, lane, (const int[]){ __VA_ARGS__, -1 })

#endif
