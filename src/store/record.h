/* store/record.h - one file that is either whole or not there.
 *
 * A record is a header and a stream of payload bytes. It is written to a temporary file
 * beside its final name, synced, and renamed, so that a crash leaves the old file or
 * the new one. Opening checks magic, version, kind, lengths and the checksum of every
 * byte before the first payload byte is handed out; what the payload means is still the
 * reader's to check, since a checksum says nothing about intent.
 *
 *     offset  size  field (little-endian)
 *          0     8  magic "WINNOWRC"
 *          8     4  version (3; of sessions 4)
 *         12     4  kind (WN_RECORD_...)
 *         16    16  model fingerprint
 *         32    32  numerics id, NUL-padded ("avx512/2")
 *         64     8  payload bytes
 *         72     8  flags, 0
 *         80    16  XXH3-128 (canonical) of bytes [0, 80) and the payload
 *         96     -  payload
 */
#ifndef WN_STORE_RECORD_H
#define WN_STORE_RECORD_H

#include "base/os.h"

enum { WN_RECORD_SESSION = 1, WN_RECORD_CALIBRATION = 2 };
enum { WN_RECORD_VERSION = 3, WN_RECORD_VERSION_SESSION = 4 };

typedef struct {
    uint8_t fingerprint[16];
    char numerics[32];
} wn_record_id;

typedef struct wn_record_writer wn_record_writer;
wn_status wn_record_begin(wn_record_writer **out, const char *path, uint32_t kind,
                          const wn_record_id *id, wn_err *err);
wn_status wn_record_write(wn_record_writer *w, const void *data, size_t n, wn_err *err);
/* Syncs, renames, and frees the writer; on failure nothing replaced path. */
wn_status wn_record_commit(wn_record_writer *w, wn_err *err);
void wn_record_abort(wn_record_writer *w);      /* NULL is fine */

typedef struct {
    wn_os_file file;
    const uint8_t *payload;
    size_t n, at;                       /* payload bytes; how many have been read */
    wn_record_id id;
    uint8_t sum[16];                    /* the checksum */
} wn_record;
/* WN_EFORMAT with a sentence when the file is not a whole record of this kind. */
wn_status wn_record_open(wn_record *r, const char *path, uint32_t kind, wn_err *err);
/* The same over bytes in memory (tests, fuzzers), borrowed. */
wn_status wn_record_open_memory(wn_record *r, const void *data, size_t n, uint32_t kind,
                                wn_err *err);
wn_status wn_record_read(wn_record *r, void *data, size_t n, wn_err *err);  /* exactly n bytes */
void wn_record_close(wn_record *r);

#endif
