/* page/f32.c - pages of floats: nothing is rounded; twice the bytes. For references. */
#include "page/raw.h"

WN_RAW_FORMAT(f32, WN_ELEM_F32);
