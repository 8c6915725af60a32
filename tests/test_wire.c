#include <cotrain/wire.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mutate.h"

/* A text into an array, zeros to its end. */
#define SET(array, text)                                                                           \
    do {                                                                                           \
        memset(array, 0, sizeof array);                                                            \
        memcpy(array, text, sizeof text - 1);                                                      \
    } while (0)

static const struct ct_bytes blob = {(const uint8_t *)"bytes of others", 15};

static struct ct_wire example(enum ct_wire_kind kind) {
    struct ct_wire wire;
    memset(&wire, 0, sizeof wire);
    wire.kind = kind;
    switch (kind) {
    case CT_WIRE_RUN:
        wire.body.run.entry = blob;
        break;
    case CT_WIRE_WELCOME:
        wire.body.welcome.http_port = 8080;
        wire.body.welcome.mirror_count = 2;
        SET(wire.body.welcome.mirrors[0], "https://a.example/run");
        memset(wire.body.welcome.mirrors[1], 'm', 255);
        break;
    case CT_WIRE_NOTICE:
        wire.body.notice.checkpoint = blob;
        wire.body.notice.round = 4;
        wire.body.notice.phase = 2;
        wire.body.notice.remaining_ms = 90000;
        break;
    case CT_WIRE_RECEIPT:
        wire.body.receipt.round = 4;
        wire.body.receipt.text = blob;
        break;
    case CT_WIRE_UPLOADED:
        wire.body.uploaded.round = 4;
        wire.body.uploaded.offset = 1ull << 33;
        wire.body.uploaded.complete = true;
        break;
    case CT_WIRE_REFUSAL:
        wire.body.refusal.code = CT_REFUSED_BUSY;
        wire.body.refusal.final = true;
        SET(wire.body.refusal.text, "come back tomorrow");
        break;
    case CT_WIRE_HELLO:
        wire.body.hello.protocol = CT_PROTOCOL_VERSION;
        memset(wire.body.hello.run_id.bytes, 1, 32);
        memset(wire.body.hello.instance, 2, CT_INSTANCE_BYTES);
        memset(wire.body.hello.model.bytes, 3, 32);
        memset(wire.body.hello.state.bytes, 4, 32);
        SET(wire.body.hello.software, "cotrain 0.1.0");
        wire.body.hello.checkpoint = blob;
        wire.body.hello.profile = blob;
        break;
    case CT_WIRE_READY:
        wire.body.ready.round = 4;
        memset(wire.body.ready.model.bytes, 3, 32);
        memset(wire.body.ready.state.bytes, 4, 32);
        wire.body.ready.tokens_per_s = 20500.5f;
        break;
    case CT_WIRE_COMMIT:
        wire.body.commit.envelope = blob;
        break;
    case CT_WIRE_UPLOAD:
        wire.body.upload.round = 4;
        wire.body.upload.offset = 1ull << 33;
        wire.body.upload.data = blob;
        break;
    case CT_WIRE_LEAVE:
        break;
    case CT_WIRE_PING:
    case CT_WIRE_PONG:
        wire.body.ping.token = 0x0123456789abcdefu;
        break;
    }
    return wire;
}

static void encode(const struct ct_wire *wire, struct ct_buf *buf) {
    ct_buf_init(buf, CT_FRAME_BYTES_MAX_UPLOAD);
    assert_int_equal(ct_wire_encode(wire, buf), CT_OK);
}

static enum ct_err decode_and_encode(struct ct_bytes bytes) {
    struct ct_wire wire;
    enum ct_err err = ct_wire_decode(bytes, &wire);
    if (err == CT_OK) {
        struct ct_buf again;
        encode(&wire, &again);
        assert_int_equal(again.length, bytes.length);
        assert_memory_equal(again.data, bytes.data, bytes.length);
        ct_buf_deinit(&again);
    }
    return err;
}

/* The span that a kind has, or none. */
static struct ct_bytes *span_of(struct ct_wire *wire) {
    switch (wire->kind) {
    case CT_WIRE_RUN:
        return &wire->body.run.entry;
    case CT_WIRE_NOTICE:
        return &wire->body.notice.checkpoint;
    case CT_WIRE_RECEIPT:
        return &wire->body.receipt.text;
    case CT_WIRE_COMMIT:
        return &wire->body.commit.envelope;
    case CT_WIRE_UPLOAD:
        return &wire->body.upload.data;
    case CT_WIRE_HELLO:
        return &wire->body.hello.checkpoint;
    default:
        return NULL;
    }
}

/* Structs are zeroed first on both sides, so all but the span is compared at once. */
static void every_kind_comes_back(void **state) {
    (void)state;
    for (int kind = CT_WIRE_RUN; kind <= CT_WIRE_PONG; kind++) {
        struct ct_wire wire = example((enum ct_wire_kind)kind);
        struct ct_buf buf;
        encode(&wire, &buf);
        struct ct_wire back;
        assert_int_equal(ct_wire_decode(ct_buf_bytes(&buf), &back), CT_OK);
        struct ct_bytes *span = span_of(&back);
        if (span != NULL) {
            assert_int_equal(span->length, blob.length);
            assert_memory_equal(span->data, blob.data, blob.length);
            assert_true(span->data >= buf.data &&
                        span->data + span->length <= buf.data + buf.length);
            *span = blob;
        }
        if (kind == CT_WIRE_HELLO) {
            assert_int_equal(back.body.hello.profile.length, blob.length);
            assert_memory_equal(back.body.hello.profile.data, blob.data, blob.length);
            back.body.hello.profile = blob;
        }
        assert_memory_equal(&back, &wire, sizeof wire);
        ct_buf_deinit(&buf);
    }
}

static void what_is_none_comes_back_as_none(void **state) {
    (void)state;
    struct ct_wire hello = example(CT_WIRE_HELLO);
    memset(hello.body.hello.model.bytes, 0, 32);
    memset(hello.body.hello.state.bytes, 0, 32);
    memset(hello.body.hello.software, 0, sizeof hello.body.hello.software);
    hello.body.hello.checkpoint = (struct ct_bytes){NULL, 0};
    hello.body.hello.profile = (struct ct_bytes){NULL, 0};
    struct ct_buf buf;
    encode(&hello, &buf);
    struct ct_wire back;
    assert_int_equal(ct_wire_decode(ct_buf_bytes(&buf), &back), CT_OK);
    assert_memory_equal(&back, &hello, sizeof back);
    ct_buf_deinit(&buf);
    struct ct_wire upload = example(CT_WIRE_UPLOAD);
    upload.body.upload.data = (struct ct_bytes){NULL, 0};
    upload.body.upload.offset = 0;
    encode(&upload, &buf);
    assert_int_equal(ct_wire_decode(ct_buf_bytes(&buf), &back), CT_OK);
    assert_int_equal(back.body.upload.data.length, 0);
    ct_buf_deinit(&buf);
}

static void a_whole_upload_chunk_fits(void **state) {
    (void)state;
    uint8_t *chunk = malloc(CT_UPLOAD_CHUNK_BYTES + 1);
    memset(chunk, 0x5a, CT_UPLOAD_CHUNK_BYTES + 1);
    struct ct_wire upload = example(CT_WIRE_UPLOAD);
    upload.body.upload.data = (struct ct_bytes){chunk, CT_UPLOAD_CHUNK_BYTES};
    struct ct_buf buf;
    encode(&upload, &buf);
    struct ct_wire back;
    assert_int_equal(ct_wire_decode(ct_buf_bytes(&buf), &back), CT_OK);
    assert_int_equal(back.body.upload.data.length, CT_UPLOAD_CHUNK_BYTES);
    assert_memory_equal(back.body.upload.data.data, chunk, CT_UPLOAD_CHUNK_BYTES);
    upload.body.upload.data.length++;
    ct_buf_clear(&buf);
    assert_int_equal(ct_wire_encode(&upload, &buf), CT_ERR_FORMAT);
    ct_buf_deinit(&buf);
    free(chunk);
}

static void damage_is_refused_or_is_another_message(void **state) {
    (void)state;
    for (int kind = CT_WIRE_RUN; kind <= CT_WIRE_PONG; kind++) {
        struct ct_wire wire = example((enum ct_wire_kind)kind);
        struct ct_buf buf;
        encode(&wire, &buf);
        unsigned refused =
            mutate_check(decode_and_encode, ct_buf_bytes(&buf), 0, (uint64_t)kind, 4000);
        assert_in_range(refused, 400, 4000);
        ct_buf_deinit(&buf);
    }
}

static void refused(const struct ct_wire *wire) {
    struct ct_buf buf;
    ct_buf_init(&buf, CT_FRAME_BYTES_MAX_UPLOAD);
    assert_int_equal(ct_wire_encode(wire, &buf), CT_ERR_FORMAT);
    assert_int_equal(buf.length, 0);
    ct_buf_deinit(&buf);
}

static void wrong_values_are_refused(void **state) {
    (void)state;
    struct ct_wire wire = example(CT_WIRE_WELCOME);
    wire.body.welcome.http_port = 65536;
    refused(&wire);
    wire = example(CT_WIRE_WELCOME);
    wire.body.welcome.mirror_count = 9;
    refused(&wire);
    wire = example(CT_WIRE_WELCOME);
    SET(wire.body.welcome.mirrors[1], "https://a.example/\r\nHost: b");
    refused(&wire);
    wire = example(CT_WIRE_NOTICE);
    wire.body.notice.phase = 5;
    refused(&wire);
    wire = example(CT_WIRE_REFUSAL);
    wire.body.refusal.code = 0;
    refused(&wire);
    wire.body.refusal.code = CT_REFUSED_BUSY + 1;
    refused(&wire);
    wire = example(CT_WIRE_REFUSAL);
    memset(wire.body.refusal.text, 'x', sizeof wire.body.refusal.text);
    refused(&wire);
    wire = example(CT_WIRE_HELLO);
    SET(wire.body.hello.software, "\x1b]0;title\x07");
    refused(&wire);
    const float speeds[] = {-1.0f, -0.0f, NAN, INFINITY};
    for (size_t i = 0; i < 4; i++) {
        wire = example(CT_WIRE_READY);
        wire.body.ready.tokens_per_s = speeds[i];
        refused(&wire);
    }
    wire = example(CT_WIRE_RUN);
    wire.body.run.entry.length = 0;
    refused(&wire);
    wire = example(CT_WIRE_UPLOAD);
    wire.body.upload.round = 0;
    refused(&wire);
    wire.kind = (enum ct_wire_kind)14;
    refused(&wire);
    wire.kind = (enum ct_wire_kind)0;
    refused(&wire);
}

/* The most memory that the process ever held, in KiB. */
static long peak_kib(void) {
    FILE *file = fopen("/proc/self/status", "r");
    assert_non_null(file);
    char line[256];
    long kib = -1;
    while (kib < 0 && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "VmHWM: %ld kB", &kib) != 1) {
            kib = -1;
        }
    }
    fclose(file);
    assert_true(kib > 0);
    return kib;
}

/* A megabyte of empty sub-messages: each takes 2 bytes here and tens of bytes decoded. The same
 * for empty strings, and for fields that nobody knows. */
static void a_frame_has_a_share_of_memory(void **state) {
    (void)state;
    size_t length = CT_UPLOAD_CHUNK_BYTES;
    uint8_t *frame = malloc(length);
    static const uint8_t pairs[][2] = {
        {0x5a, 0}, /* leave */
        {0x62, 0}, /* ping */
        {0x7a, 0}, /* field 15 */
        {0x78, 0}, /* field 15, varint */
    };
    memset(frame, 0, length);
    long before = peak_kib();
    for (size_t p = 0; p < sizeof pairs / sizeof pairs[0]; p++) {
        for (size_t i = 0; i < length; i += 2) {
            memcpy(frame + i, pairs[p], 2);
        }
        assert_int_equal(decode_and_encode((struct ct_bytes){frame, length}), CT_ERR_TOO_LARGE);
    }
    /* welcome, of empty mirrors: tag, length of 4 bytes, then pairs */
    memcpy(frame, (uint8_t[]){0x12, 0x80, 0x80, 0x40}, 4);
    for (size_t i = 4; i < length; i += 2) {
        memcpy(frame + i, (uint8_t[]){0x12, 0}, 2);
    }
    frame[1] = 0xfc;
    frame[2] = 0xff;
    frame[3] = 0x3f;
    assert_int_equal(decode_and_encode((struct ct_bytes){frame, length}), CT_ERR_TOO_LARGE);
#ifndef __SANITIZE_ADDRESS__
    assert_in_range(peak_kib() - before, 0, 12 * 1024);
#else
    (void)before;
#endif
    /* Of any length: never taken, whichever allocation is the one refused. */
    for (size_t short_length = 2; short_length < 6000; short_length += 2) {
        for (size_t i = 0; i < short_length; i += 2) {
            memcpy(frame + i, pairs[short_length / 2 % 4], 2);
        }
        enum ct_err err = decode_and_encode((struct ct_bytes){frame, short_length});
        assert_true(err == CT_ERR_TOO_LARGE || err == CT_ERR_FORMAT ||
                    (err == CT_OK && short_length == 2));
    }
    free(frame);
}

static void frames_have_a_maximum(void **state) {
    (void)state;
    uint8_t *frame = calloc(1, CT_FRAME_BYTES_MAX_UPLOAD + 1);
    assert_int_equal(decode_and_encode((struct ct_bytes){frame, CT_FRAME_BYTES_MAX_UPLOAD + 1}),
                     CT_ERR_TOO_LARGE);
    assert_int_equal(decode_and_encode((struct ct_bytes){NULL, 0}), CT_ERR_FORMAT);
    free(frame);
}

/* Bytes of no message at all. */
static void noise_is_refused(void **state) {
    (void)state;
    uint64_t seed = 42;
    for (unsigned i = 0; i < 20000; i++) {
        uint8_t noise[48];
        size_t length = (size_t)(mutate_draw(&seed) % sizeof noise);
        for (size_t b = 0; b < length; b++) {
            noise[b] = (uint8_t)mutate_draw(&seed);
        }
        (void)mutate_decode_copy(decode_and_encode, noise, length);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_comes_back),
        cmocka_unit_test(what_is_none_comes_back_as_none),
        cmocka_unit_test(a_whole_upload_chunk_fits),
        cmocka_unit_test(damage_is_refused_or_is_another_message),
        cmocka_unit_test(wrong_values_are_refused),
        cmocka_unit_test(a_frame_has_a_share_of_memory),
        cmocka_unit_test(frames_have_a_maximum),
        cmocka_unit_test(noise_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
