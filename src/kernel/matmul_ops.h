/* kernel/matmul_ops.h - what an instruction set supplies for wn_matmul().
 *
 * The driver (matmul.c) cuts a product into panels of 16 rows and chunks of 256 columns.
 * A panel's chunk is first unpacked into a wn_ready: one byte per code and scales as
 * floats, small enough to stay in the L1 cache while all tokens pass over it. Then
 * tiles() multiplies it with the same chunk of every token. A new quantised type is a
 * row of matmul_pack.c, and per table how its codes and scales are read (by unpack() and
 * stream() alike) and one of the existing tiles().
 *
 *     16 rows x 256 columns, packed  --unpack-->  wn_ready  --tiles-->  acc[token][row]
 *     256 activations of each token  ---------->  wn_rec    ---^
 *
 * Every table computes the same integers and the same chain of roundings, so tables
 * agree bit for bit (tests/parity/matmul.c).
 */
#ifndef WN_KERNEL_MATMUL_OPS_H
#define WN_KERNEL_MATMUL_OPS_H

#include "kernel/kernel.h"
#include "kernel/matmul.h"

enum {
    WN_PANEL_ROWS = 16,         /* rows that are interleaved */
    WN_CHUNK_COLS = 256,        /* columns unpacked at a time */
    WN_PART_PANELS = 4,         /* panels of one part of a job, and at most of one tile */
    WN_PART_ROWS = WN_PANEL_ROWS * WN_PART_PANELS,
    WN_PART_TOKENS = 512        /* tokens of one part: acc below stays in the L2 cache */
};

/* 256 activations of one token. Records lie [chunk][token], so any run of tokens can be
 * a tile. A chunk at the end of a row may be short: what lies behind is zero. */
typedef struct {
    int8_t q[256];
    union {
        struct {                /* WN_ACT_Q32 */
            float d[8];         /* scale of each 32 */
            int32_t sum[8];     /* sum of each 32 codes */
        };
        struct {                /* WN_ACT_Q256 */
            float d256;         /* the one scale */
            float pad[3];
            int16_t sum32[8];   /* sums of each 32 codes */
            int16_t sum16[16];  /* sums of each 16 codes */
        };
    };
} wn_rec;
_Static_assert(sizeof(wn_rec) == 320, "five cache lines");

/* One panel's chunk, unpacked. Which fields are used, and the form of sc, is between a
 * table's unpack and tiles; the scalar table's use is given here. */
typedef struct {
    uint8_t q[64][64];          /* [k / 4][row * 4 + k % 4], code plus zero point */
    uint8_t a[64][64];          /* avx2: absolute values of wide codes; amx: high bytes */
    float d[8][16];             /* [block][row]; K-quants: [0][row] */
    float m[8][16];             /* factors of what the second chain takes away, likewise */
    int32_t sc[16][16];         /* [sub-block][row] sub-scales of K-quants */
    int32_t mn[8][16];          /* [pair][row] two int16: minimums (or sub-scales) 2i, 2i+1 */
} wn_ready;

/* src: a packed chunk of n_blocks blocks. ahead: bytes from src to what should be
 * prefetched on the way, 0 for none. */
typedef void wn_unpack_fn(wn_ready *r, const uint8_t *src, int n_blocks, size_t ahead);

typedef struct {
    const wn_ready *w;          /* n_panels of them */
    int n_panels;               /* 1 .. WN_PART_PANELS */
    int n_blocks;               /* blocks of this chunk (1 for K-quants) */
    const wn_rec *act;          /* n_tokens records of this chunk */
    int n_tokens;               /* 1 .. WN_PART_TOKENS */
    float *acc;                 /* [token][WN_PART_ROWS], the first chain; in and out */
    float *min;                 /* the second chain, where the type has one */
    const uint8_t *next;        /* packed chunk after this one, to prefetch; or NULL */
    size_t next_bytes, next_stride;     /* its bytes in each panel, and from panel to panel */
} wn_chunk;
typedef void wn_tiles_fn(const wn_chunk *c);
/* unpack() and tiles() in one, for one panel and up to few_tokens tokens: codes go from the
 * stream to the multiplier without a stop in L1. r is scratch. */
typedef void wn_stream_fn(const wn_chunk *c, wn_ready *r, const uint8_t *src, size_t ahead);

/* F32, F16, BF16: some rows, as in the file, times all tokens. */
typedef struct {
    wn_type type;
    const uint8_t *w;           /* first row */
    size_t row_bytes;
    int n_rows, n_cols;
    const float *x;             /* (n_tokens, n_cols) */
    int n_tokens;
    float *out;                 /* out[t * out_stride + r] */
    size_t out_stride;
    const float *bias;          /* (n_rows) or NULL */
    void *scratch;              /* WN_FLOAT_SCRATCH bytes, 64-byte aligned */
} wn_float_job;
enum { WN_FLOAT_SCRATCH = 256 << 10 };

struct wn_matmul_ops {
    /* One chunk of one row of activations; n_blocks of 32 values are there. */
    void (*act_q32)(wn_rec *r, const float *x, int n_blocks);
    void (*act_q256)(wn_rec *r, const float *x);
    wn_unpack_fn *const *unpack;                /* [WN_TYPE_COUNT], as tiles and stream */
    wn_tiles_fn *const *tiles;
    /* Up to few_tokens tokens pass over one panel at a time, so that the weights are one
     * sequential stream, prefetched ahead_bytes before its use: near where the products are
     * cheap, far where a chunk takes long to unpack. Measured (bench/NOTES.md). */
    int few_tokens;
    size_t ahead_bytes[WN_TYPE_COUNT];
    wn_stream_fn *const *stream;                /* NULL: unpack, then tiles */
    void (*floats)(const wn_float_job *j);
    /* A table that pays only for many tokens names one for the others; same bits. */
    const wn_matmul_ops *few;
    int from_tokens[WN_TYPE_COUNT];             /* fewer tokens go to `few` */
};
extern const wn_matmul_ops wn_matmul_ops_scalar, wn_matmul_ops_avx2, wn_matmul_ops_avx512;
extern const wn_matmul_ops wn_matmul_ops_amx;

/* Does this CPU have the tiles that amx needs, and does the kernel let us use them? */
bool wn_matmul_amx_runs(void);

extern wn_unpack_fn *const wn_unpack_avx2[WN_TYPE_COUNT], *const wn_unpack_avx512[WN_TYPE_COUNT];
extern wn_stream_fn *const wn_stream_avx2[WN_TYPE_COUNT], *const wn_stream_avx512[WN_TYPE_COUNT];

/* Shared by tables: the float half of each has a file of its own, and avx512 prepares
 * activations as avx2 does. */
void wn_act_q32_avx2(wn_rec *r, const float *x, int n_blocks);
void wn_act_q256_avx2(wn_rec *r, const float *x);
void wn_floats_avx2(const wn_float_job *j);
void wn_floats_avx512(const wn_float_job *j);

/* ---- packing (matmul_pack.c) --------------------------------------------------- */

int wn_pack_block(wn_type t);                       /* values per block; 0: not a packed type */
size_t wn_pack_chunk_bytes(wn_type t, int n_blocks);/* packed bytes of a panel's chunk */
size_t wn_pack_panel_bytes(wn_type t, int n_cols);
/* Packs blocks of up to 16 rows; n_rows < 16 leaves zero rows. src is the first row's
 * first block, row_bytes apart. */
void wn_pack_chunk(uint8_t *dst, const uint8_t *src, size_t row_bytes, wn_type t, int n_rows,
                   int n_blocks);
/* The n_blocks blocks of row r of a packed chunk, as in the file. */
void wn_unpack_blocks(uint8_t *blocks, const uint8_t *chunk, wn_type t, int r, int n_blocks);

/* Does this type have the second chain? */
bool wn_type_has_min(wn_type t);

/* Where the fields of a chunk of n blocks of 32 begin, for code that knows the type when it
 * is compiled; scales are at 0. The same facts as in matmul_pack.c's table. */
typedef struct { size_t m, high, qs; } wn_at32;
static inline wn_at32 wn_at_32(wn_type t, int n_blocks)
{
    size_t n = (size_t)n_blocks;
    switch (t) {
    case WN_TYPE_MXFP4: return (wn_at32){ .qs = 16 * n };
    case WN_TYPE_Q4_1: return (wn_at32){ .m = 32 * n, .qs = 64 * n };
    case WN_TYPE_Q5_0: return (wn_at32){ .high = 32 * n, .qs = 96 * n };
    case WN_TYPE_Q5_1: return (wn_at32){ .m = 32 * n, .high = 64 * n, .qs = 128 * n };
    default: return (wn_at32){ .qs = 32 * n };
    }
}
/* Where a super-block's fields lie in its chunk of 16 rows. */
enum {
    WN_AT_Q45_SCALES = 64, WN_AT_Q4_QS = 256, WN_AT_Q5_HIGH = 256, WN_AT_Q5_QS = 768,
    WN_AT_Q6_HIGH = 2048, WN_AT_Q6_SCALES = 3072, WN_AT_Q6_D = 3328,
    WN_AT_Q2_QS = 256, WN_AT_Q2_D = 1280, WN_AT_Q2_DMIN = 1312,
    WN_AT_Q3_QS = 512, WN_AT_Q3_SCALES = 1536, WN_AT_Q3_D = 1728,
    WN_AT_XS_HIGH = 32, WN_AT_XS_LOW = 64, WN_AT_XS_QS = 128,
};
/* The power of two that codes of a block of 32 are stored above, so that they are not
 * negative: 1 << wn_log2_zero(); -1: nothing. Codes of tables are stored with it added. */
static inline int wn_log2_zero(wn_type t)
{
    switch (t) {
    case WN_TYPE_Q4_0: return 3;
    case WN_TYPE_Q5_0: case WN_TYPE_MXFP4: return 4;
    case WN_TYPE_Q8_0: case WN_TYPE_IQ4_NL: return 7;
    default: return -1;
    }
}

#endif
