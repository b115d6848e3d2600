/* page/f16.c - pages of halves (1 sign, 5 exponent, 10 mantissa bits): the usual cache.
 * Keys and values of trained models lie well inside its range; 11 bits of precision. */
#include "page/raw.h"

WN_RAW_FORMAT(f16, WN_ELEM_F16);
