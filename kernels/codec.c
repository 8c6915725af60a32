#include "flush.h"
#include "select.h"

#include <cotrain/assert.h>
#include <cotrain/codec.h>
#include <cotrain/mode.h>

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define UPDATE_VERSION 1u
#define RICE_BITS      5u
/* A gap is below 4,096, so its quotient is below 128. */
#define QUOTIENT_MAX ((CT_CHUNK_VALUES - 1) >> RICE_BITS)
#define SIGN_BIT     0x80000000u
#define FLOAT_MAX    0x7f7fffffu
#define FLOAT_INF    0x7f800000u

static const uint8_t magic[4] = {'C', 'T', 'U', 'P'};

static_assert(CT_UPDATE_HEADER_BYTES == 4 + 4 + 32 + 4 + 4 + 8,
              "the header as the contract has it");

/* Scale codes. */

bool ct_scale_valid(uint16_t code) {
    return code == 0 || code >= 1024;
}

double ct_scale_decode(uint16_t code) {
    CT_ASSERT(ct_scale_valid(code));
    if (code == 0) {
        return 0.0;
    }
    /* Mantissa and exponent go straight into the fields of a binary64: exact, and a normal one. */
    const uint64_t bits = ((uint64_t)(code >> 10) + 982u) << 52 | (uint64_t)(code & 1023u) << 42;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

uint16_t ct_scale_encode(double mean) {
    uint64_t bits;
    memcpy(&bits, &mean, sizeof bits);
    CT_ASSERT(bits >> 52 < 2047); /* not negative, finite */
    /* Nearest even on 10 bits of mantissa; a carry runs into the exponent by itself. What remains
     * is (biased exponent, mantissa), and a code is that less the difference of the biases. */
    const uint64_t rounded = (bits + ((1ull << 41) - 1) + (bits >> 42 & 1)) >> 42;
    const uint64_t bias = 982ull << 10;
    if (rounded < bias + 1024) {
        return 0;
    }
    return rounded - bias > UINT16_MAX ? UINT16_MAX : (uint16_t)(rounded - bias);
}

/* Little-endian fields and the bit stream. */

static void put32(uint8_t *out, uint32_t value) {
    for (uint32_t i = 0; i < 4; i++) {
        out[i] = (uint8_t)(value >> (8 * i));
    }
}

static void put64(uint8_t *out, uint64_t value) {
    put32(out, (uint32_t)value);
    put32(out + 4, (uint32_t)(value >> 32));
}

static uint32_t get32(const uint8_t *in) {
    return (uint32_t)in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
}

static uint64_t get64(const uint8_t *in) {
    return (uint64_t)get32(in) | (uint64_t)get32(in + 4) << 32;
}

struct writer {
    uint8_t *next;
    uint64_t held; /* bits not yet written, the least significant first */
    uint32_t count;
};

/* count ≤ 32 */
static void write_bits(struct writer *writer, uint64_t bits, uint32_t count) {
    writer->held |= bits << writer->count;
    writer->count += count;
    while (writer->count >= 8) {
        *writer->next++ = (uint8_t)writer->held;
        writer->held >>= 8;
        writer->count -= 8;
    }
}

static void write_gap(struct writer *writer, uint32_t gap) {
    for (uint32_t quotient = gap >> RICE_BITS; quotient > 0;) {
        const uint32_t ones = quotient < 32 ? quotient : 32;
        write_bits(writer, (1ull << ones) - 1, ones);
        quotient -= ones;
    }
    write_bits(writer, (uint64_t)(gap & ((1u << RICE_BITS) - 1)) << 1, RICE_BITS + 1);
}

/* At least 57 bits from the position on, zeros past the end: the position may pass it, and the
 * caller looks. */
static uint64_t peek(const struct ct_update_reader *reader) {
    const uint64_t byte = reader->position >> 3;
    const uint64_t bytes = reader->bits >> 3;
    uint64_t window = 0;
    for (uint64_t i = 0; i < 8 && byte + i < bytes; i++) {
        window |= (uint64_t)reader->data[byte + i] << (8 * i);
    }
    return window >> (reader->position & 7);
}

/* False for a quotient that no gap has. */
static bool read_gap(struct ct_update_reader *reader, uint32_t *out_gap) {
    uint32_t quotient = 0;
    uint64_t window = peek(reader);
    while ((window & 0xffffffffu) == 0xffffffffu) {
        quotient += 32;
        reader->position += 32;
        if (quotient > QUOTIENT_MAX) {
            return false;
        }
        window = peek(reader);
    }
    const uint32_t ones = (uint32_t)__builtin_ctzll(~window);
    quotient += ones;
    *out_gap = quotient << RICE_BITS | (uint32_t)(window >> (ones + 1) & ((1u << RICE_BITS) - 1));
    reader->position += ones + 1 + RICE_BITS;
    return quotient <= QUOTIENT_MAX;
}

/* Encoding. */

size_t ct_update_bytes_max(const struct ct_chunks *chunks) {
    uint64_t bits = 0;
    for (uint32_t c = 0; c < chunks->count; c++) {
        const struct ct_chunk *chunk = &chunks->chunks[c];
        bits += chunk->selected * (uint64_t)(RICE_BITS + 2) +
                ((chunk->values - chunk->selected) >> RICE_BITS);
    }
    return CT_UPDATE_HEADER_BYTES + 2 * (size_t)chunks->count + (size_t)((bits + 7) / 8);
}

/* u = fma(0.95, e, base − local) over n contiguous values, with the rule for what is not finite. */
static void feed_back(const float *base, const float *local, const float *residual, uint32_t n,
                      float *u, int32_t *keys) {
    for (uint32_t i = 0; i < n; i++) {
        const float value = ct_fma(0.95f, residual[i], base[i] - local[i]);
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        bits = (bits & ~SIGN_BIT) > FLOAT_INF ? 0 : bits;
        bits = (bits & ~SIGN_BIT) == FLOAT_INF ? (bits & SIGN_BIT) | FLOAT_MAX : bits;
        memcpy(&u[i], &bits, sizeof bits);
        keys[i] = (int32_t)(bits & ~SIGN_BIT);
    }
}

struct encoder {
    struct writer writer;
    float u[CT_CHUNK_VALUES];
    int32_t keys[CT_CHUNK_VALUES];
};

static size_t value_index(const struct ct_chunk *chunk, uint32_t i) {
    return chunk->offset + (size_t)(i / chunk->columns) * chunk->stride + i % chunk->columns;
}

/* Mean of the selected magnitudes: a binary64 chain over ascending indices, one division. */
static double selected_mean(const float *u, const uint16_t *positions, uint32_t k) {
    double sum = 0.0;
    for (uint32_t i = 0; i < k; i++) {
        sum += fabs((double)u[positions[i]]);
    }
    return sum / (double)k;
}

/* Writes one chunk's gaps and signs, makes its new residual, returns its scale code. */
static uint16_t encode_chunk(struct encoder *encoder, const struct ct_chunk *chunk,
                             const float *base, const float *local, float *residual) {
    float *u = encoder->u;
    for (uint32_t row = 0; row < chunk->rows; row++) {
        const size_t at = chunk->offset + (size_t)row * chunk->stride;
        const uint32_t first = row * chunk->columns;
        feed_back(base + at, local + at, residual + at, chunk->columns, u + first,
                  encoder->keys + first);
        memcpy(residual + at, u + first, chunk->columns * sizeof *u);
    }
    const uint32_t k = chunk->selected;
    uint16_t positions[CT_CHUNK_SELECTED_MAX];
    ct_select_largest(encoder->keys, chunk->values, k, positions);
    const uint16_t code = ct_scale_encode(selected_mean(u, positions, k));
    if (code == 0) {
        return 0;
    }
    const float scale = ct_narrow(ct_scale_decode(code));
    uint32_t next = 0;
    for (uint32_t i = 0; i < k; i++) {
        write_gap(&encoder->writer, positions[i] - next);
        next = positions[i] + 1u;
    }
    for (uint32_t i = 0; i < k; i++) {
        const float value = u[positions[i]];
        const bool negative = value < 0.0f;
        write_bits(&encoder->writer, negative ? 1 : 0, 1);
        residual[value_index(chunk, positions[i])] = negative ? value + scale : value - scale;
    }
    return code;
}

void ct_update_encode(const struct ct_chunks *chunks, const struct ct_update_header *header,
                      const float *base, const float *local, float *residual, uint8_t *out,
                      size_t *out_length) {
    uint8_t *codes = out + CT_UPDATE_HEADER_BYTES;
    struct encoder encoder;
    encoder.writer = (struct writer){.next = codes + 2 * (size_t)chunks->count};
    const struct ct_mode mode = ct_mode_enter();
    for (uint32_t c = 0; c < chunks->count; c++) {
        const uint16_t code = encode_chunk(&encoder, &chunks->chunks[c], base, local, residual);
        codes[2 * (size_t)c] = (uint8_t)code;
        codes[2 * (size_t)c + 1] = (uint8_t)(code >> 8);
    }
    ct_mode_leave(mode);
    if (encoder.writer.count > 0) {
        write_bits(&encoder.writer, 0, 8 - encoder.writer.count);
    }
    memcpy(out, magic, sizeof magic);
    put32(out + 4, UPDATE_VERSION);
    memcpy(out + 8, header->assignment.bytes, sizeof header->assignment.bytes);
    put32(out + 40, header->steps);
    put32(out + 44, chunks->count);
    put64(out + 48, (uint64_t)(encoder.writer.next - codes));
    *out_length = (size_t)(encoder.writer.next - out);
    CT_ASSERT(*out_length <= ct_update_bytes_max(chunks));
}

/* Decoding. */

static bool begins_an_update(const uint8_t *data) {
    return memcmp(data, magic, sizeof magic) == 0 && get32(data + 4) == UPDATE_VERSION;
}

bool ct_update_is_for(struct ct_bytes payload, const struct ct_hash *assignment) {
    return payload.length >= CT_UPDATE_HEADER_BYTES && begins_an_update(payload.data) &&
           memcmp(payload.data + 8, assignment->bytes, sizeof assignment->bytes) == 0;
}

static enum ct_err decode_header(const struct ct_chunks *chunks, struct ct_bytes payload,
                                 struct ct_update_header *out) {
    const size_t least = CT_UPDATE_HEADER_BYTES + 2 * (size_t)chunks->count;
    if (payload.length < least || payload.length > ct_update_bytes_max(chunks)) {
        return ct_fail(CT_ERR_FORMAT, "update of %zu bytes: this model's have %zu to %zu",
                       payload.length, least, ct_update_bytes_max(chunks));
    }
    const uint8_t *data = payload.data;
    if (!begins_an_update(data)) {
        return ct_fail(CT_ERR_FORMAT, "update does not begin with CTUP version 1");
    }
    memcpy(out->assignment.bytes, data + 8, sizeof out->assignment.bytes);
    out->steps = get32(data + 40);
    if (out->steps == 0 || out->steps > CT_STEPS_MAX) {
        return ct_fail(CT_ERR_FORMAT, "update of %lu steps: 1 to %u are possible",
                       (unsigned long)out->steps, CT_STEPS_MAX);
    }
    if (get32(data + 44) != chunks->count) {
        return ct_fail(CT_ERR_FORMAT, "update of %lu chunks: this model has %lu",
                       (unsigned long)get32(data + 44), (unsigned long)chunks->count);
    }
    if (get64(data + 48) != payload.length - CT_UPDATE_HEADER_BYTES) {
        return ct_fail(CT_ERR_FORMAT, "update names a body of %llu bytes, %zu follow",
                       (unsigned long long)get64(data + 48),
                       payload.length - CT_UPDATE_HEADER_BYTES);
    }
    return CT_OK;
}

static enum ct_err read_chunk(struct ct_update_reader *reader, uint16_t *positions,
                              uint8_t *negative) {
    const struct ct_chunk *chunk = &reader->chunks->chunks[reader->chunk];
    uint32_t next = 0;
    for (uint32_t i = 0; i < chunk->selected; i++) {
        uint32_t gap;
        if (!read_gap(reader, &gap) || gap >= chunk->values - next) {
            return ct_fail(CT_ERR_FORMAT, "update, chunk %lu: a position beyond its %lu values",
                           (unsigned long)reader->chunk, (unsigned long)chunk->values);
        }
        positions[i] = (uint16_t)(next + gap);
        next += gap + 1;
    }
    for (uint32_t i = 0; i < chunk->selected; i++) {
        negative[i] = (uint8_t)(peek(reader) & 1);
        reader->position++;
    }
    if (reader->position > reader->bits) {
        return ct_fail(CT_ERR_FORMAT, "update ends inside chunk %lu", (unsigned long)reader->chunk);
    }
    return CT_OK;
}

enum ct_err ct_update_open(const struct ct_chunks *chunks, struct ct_bytes payload,
                           struct ct_update_header *header, struct ct_update_reader *out) {
    CT_TRY(decode_header(chunks, payload, header));
    const size_t head_bytes = CT_UPDATE_HEADER_BYTES + 2 * (size_t)chunks->count;
    *out = (struct ct_update_reader){
        .chunks = chunks,
        .codes = payload.data + CT_UPDATE_HEADER_BYTES,
        .data = payload.data + head_bytes,
        .bits = 8 * (uint64_t)(payload.length - head_bytes),
    };
    return CT_OK;
}

enum ct_err ct_update_next(struct ct_update_reader *reader, uint16_t *out_code, uint16_t *positions,
                           uint8_t *negative) {
    CT_ASSERT(reader->chunk < reader->chunks->count);
    const uint8_t *bytes = reader->codes + 2 * (size_t)reader->chunk;
    const uint16_t code = (uint16_t)(bytes[0] | bytes[1] << 8);
    if (!ct_scale_valid(code)) {
        return ct_fail(CT_ERR_FORMAT, "update, chunk %lu: no scale has the code %u",
                       (unsigned long)reader->chunk, code);
    }
    if (code != 0) {
        CT_TRY(read_chunk(reader, positions, negative));
        const double scale = ct_scale_decode(code);
        reader->squares += (double)reader->chunks->chunks[reader->chunk].selected * (scale * scale);
    }
    *out_code = code;
    reader->chunk++;
    if (reader->chunk == reader->chunks->count &&
        (reader->bits - reader->position >= 8 || peek(reader) != 0)) {
        return ct_fail(CT_ERR_FORMAT, "update: something follows its last chunk");
    }
    return CT_OK;
}

enum ct_err ct_update_check(const struct ct_chunks *chunks, struct ct_bytes payload,
                            struct ct_update_header *out_header, double *out_norm) {
    struct ct_update_reader reader;
    CT_TRY(ct_update_open(chunks, payload, out_header, &reader));
    while (reader.chunk < chunks->count) {
        uint16_t code, positions[CT_CHUNK_SELECTED_MAX];
        uint8_t negative[CT_CHUNK_SELECTED_MAX];
        CT_TRY(ct_update_next(&reader, &code, positions, negative));
    }
    *out_norm = sqrt(reader.squares);
    return CT_OK;
}

static enum ct_err decode(struct ct_update_reader *reader, struct ct_update *out) {
    size_t first = 0;
    while (reader->chunk < reader->chunks->count) {
        const uint32_t c = reader->chunk;
        CT_TRY(
            ct_update_next(reader, &out->codes[c], out->positions + first, out->negative + first));
        first += reader->chunks->chunks[c].selected;
    }
    out->norm = sqrt(reader->squares);
    return CT_OK;
}

enum ct_err ct_update_decode(const struct ct_chunks *chunks, struct ct_bytes payload,
                             struct ct_update *out) {
    struct ct_update_reader reader;
    *out = (struct ct_update){0};
    CT_TRY(ct_update_open(chunks, payload, &out->header, &reader));
    const size_t selected = (size_t)chunks->selected_total;
    out->codes = calloc(chunks->count, sizeof *out->codes);
    out->positions = calloc(selected, sizeof *out->positions);
    out->negative = calloc(selected, sizeof *out->negative);
    enum ct_err err = CT_OK;
    if (out->codes == NULL || out->positions == NULL || out->negative == NULL) {
        err = ct_fail(CT_ERR_MEMORY, "no memory for an update of %lu chunks",
                      (unsigned long)chunks->count);
    } else {
        err = decode(&reader, out);
    }
    if (err != CT_OK) {
        ct_update_deinit(out);
    }
    return err;
}

void ct_update_deinit(struct ct_update *update) {
    free(update->codes);
    free(update->positions);
    free(update->negative);
    *update = (struct ct_update){0};
}
