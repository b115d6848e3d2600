/* kernel/codes_fields_simd.h - codes out of their fields, for any vector width: the words are those
 * of codes_simd.h, which includes this.
 */
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

/* ---- codes out of their fields --------------------------------------------------------- */

/* Field j (of 4 rows) of a unit, shifted to bit `to` of each byte; at: its first block's W
 * columns. */
INLINE ivec field(const uint8_t *at, const int bits, const int j, size_t block, const int to)
{
    const int fields = 8 / bits, down = j % fields * bits;
    ivec v = i_load(at + (size_t)(j / fields) * block);
    if (bits == 8) return v;
    if (down > to) v = i_srl(v, down - to);
    if (down < to) v = i_sll(v, to - down);
    return i_and(v, i_set8(((1 << bits) - 1) << to));
}

INLINE ivec codes(const uint8_t *at_low, const uint8_t *at_high, const int low, const int high,
                  const bool mapped, ivec table, const int j, size_t block)
{
    ivec v = field(at_low, low, j, block, 0);
    if (high) v = i_or(v, field(at_high, high, j, block, low));
    return mapped ? i_map(table, v) : v;
}
