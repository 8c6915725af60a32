/* Cutting a byte stream into frames: u32 big-endian length ‖ bytes. No sockets. */
#ifndef PROTO_RT_FRAME_H
#define PROTO_RT_FRAME_H

#include <cotrain/err.h>
#include <cotrain/types.h>

struct ct_frame_reader {
    size_t maximum; /* of the next frame; may be changed at any time */
    uint8_t header[4];
    uint32_t header_length;
    uint8_t *frame; /* owned */
    size_t capacity, length, wanted;
};

/* Zeroed but for the maximum; reserves nothing. */
void ct_frame_reader_init(struct ct_frame_reader *reader, size_t maximum);
void ct_frame_reader_deinit(struct ct_frame_reader *reader);

/* Takes bytes up to the end of one frame at most; *used says how many. *whole tells that a frame is
 * complete: it is then in *out, valid until the next call. CT_ERR_TOO_LARGE before anything is
 * reserved. */
CT_MUST_CHECK enum ct_err ct_frame_read(struct ct_frame_reader *reader, struct ct_bytes bytes,
                                        size_t *used, bool *whole, struct ct_bytes *out);

/* The four bytes before a frame of that length. */
void ct_frame_header(size_t length, uint8_t out[4]);

#endif
