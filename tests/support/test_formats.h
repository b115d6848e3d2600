/* tests/support/test_formats.h - formats made for tests of the cache.
 *
 * test_f32 is raw. The others are encoded from it by cutting each float to its upper 16 bits, which
 * a test can predict slot by slot: `copy` may be repacked after it is sealed, `fixed` may not.
 * test_low cuts to the upper 12 bits and is for demoted slots. None can be read by attention.
 */
#ifndef WN_TEST_FORMATS_H
#define WN_TEST_FORMATS_H

#include "page/format.h"

extern const wn_format test_f32, test_copy_lag1, test_copy_lag0, test_fixed_lag2, test_low;

/* What a sealed slot reads as. */
static inline float test_cut(float x)
{
    union { float f; uint32_t u; } w = { x };
    w.u &= 0xffff0000u;
    return w.f;
}

#endif
