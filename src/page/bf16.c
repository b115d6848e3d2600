/* page/bf16.c - pages of bfloat16 (1 sign, 8 exponent, 7 mantissa bits): the range of a
 * float with 8 bits of precision, for models whose values overflow a half. */
#include "page/raw.h"

WN_RAW_FORMAT(bf16, WN_ELEM_BF16);
