#include "frame.h"

#include <stdlib.h>
#include <string.h>

#define KEEP_BYTES_MAX 65536u /* a larger buffer is given back after its frame */

void ct_frame_reader_init(struct ct_frame_reader *reader, size_t maximum) {
    memset(reader, 0, sizeof *reader);
    reader->maximum = maximum;
}

void ct_frame_reader_deinit(struct ct_frame_reader *reader) {
    free(reader->frame);
    memset(reader, 0, sizeof *reader);
}

static enum ct_err begin_frame(struct ct_frame_reader *reader) {
    const uint8_t *h = reader->header;
    const uint32_t length =
        (uint32_t)h[0] << 24 | (uint32_t)h[1] << 16 | (uint32_t)h[2] << 8 | (uint32_t)h[3];
    if (length > reader->maximum) {
        return ct_fail(CT_ERR_TOO_LARGE,
                       "a frame of %u bytes was announced where at most %zu are allowed", length,
                       reader->maximum);
    }
    if (reader->capacity > KEEP_BYTES_MAX) {
        free(reader->frame);
        reader->frame = NULL;
        reader->capacity = 0;
    }
    reader->wanted = length;
    reader->length = 0;
    if (length > reader->capacity) {
        uint8_t *frame = realloc(reader->frame, length);
        if (frame == NULL) {
            return ct_fail(CT_ERR_MEMORY, "out of memory for a frame of %u bytes", length);
        }
        reader->frame = frame;
        reader->capacity = length;
    }
    return CT_OK;
}

enum ct_err ct_frame_read(struct ct_frame_reader *reader, struct ct_bytes bytes, size_t *used,
                          bool *whole, struct ct_bytes *out) {
    *used = 0;
    *whole = false;
    while (reader->header_length < sizeof reader->header) {
        if (*used == bytes.length) {
            return CT_OK;
        }
        reader->header[reader->header_length++] = bytes.data[(*used)++];
        if (reader->header_length == sizeof reader->header) {
            CT_TRY(begin_frame(reader));
        }
    }
    const size_t missing = reader->wanted - reader->length;
    const size_t rest = bytes.length - *used;
    const size_t part = missing < rest ? missing : rest;
    if (part > 0) {
        memcpy(reader->frame + reader->length, bytes.data + *used, part);
    }
    reader->length += part;
    *used += part;
    if (reader->length == reader->wanted) {
        *whole = true;
        *out = (struct ct_bytes){reader->frame, reader->wanted};
        reader->header_length = 0;
    }
    return CT_OK;
}

void ct_frame_header(size_t length, uint8_t out[4]) {
    out[0] = (uint8_t)(length >> 24);
    out[1] = (uint8_t)(length >> 16);
    out[2] = (uint8_t)(length >> 8);
    out[3] = (uint8_t)length;
}
