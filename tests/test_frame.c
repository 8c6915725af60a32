#include "proto/rt/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* Frames of 0, 1, 300 and 70,000 bytes in one stream, fed in pieces of every size in turn. */
static void frames_come_whole_however_the_stream_is_cut(void **state) {
    (void)state;
    static const size_t lengths[] = {0, 1, 300, 70000, 5};
    enum { COUNT = sizeof lengths / sizeof lengths[0] };
    static uint8_t stream[80000];
    size_t total = 0;
    for (size_t f = 0; f < COUNT; f++) {
        ct_frame_header(lengths[f], stream + total);
        memset(stream + total + 4, (int)(f + 1), lengths[f]);
        total += 4 + lengths[f];
    }
    for (size_t piece = 1; piece <= total; piece = piece * 3 + 1) {
        struct ct_frame_reader reader;
        ct_frame_reader_init(&reader, 70000);
        size_t next = 0;
        for (size_t at = 0; at < total;) {
            const size_t length = total - at < piece ? total - at : piece;
            size_t used;
            bool whole;
            struct ct_bytes frame;
            assert_int_equal(ct_frame_read(&reader, (struct ct_bytes){stream + at, length}, &used,
                                           &whole, &frame),
                             CT_OK);
            assert_true(used > 0);
            at += used;
            if (whole) {
                assert_true(next < COUNT);
                assert_int_equal(frame.length, lengths[next]);
                for (size_t i = 0; i < frame.length; i++) {
                    assert_int_equal(frame.data[i], next + 1);
                }
                next++;
            }
        }
        assert_int_equal(next, COUNT);
        ct_frame_reader_deinit(&reader);
    }
}

static void a_longer_frame_is_refused_at_its_header(void **state) {
    (void)state;
    struct ct_frame_reader reader;
    ct_frame_reader_init(&reader, 4096);
    uint8_t header[4];
    ct_frame_header(4097, header);
    size_t used;
    bool whole;
    struct ct_bytes frame;
    assert_int_equal(ct_frame_read(&reader, (struct ct_bytes){header, 4}, &used, &whole, &frame),
                     CT_ERR_TOO_LARGE);
    assert_null(reader.frame);
    ct_frame_reader_deinit(&reader);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_come_whole_however_the_stream_is_cut),
        cmocka_unit_test(a_longer_frame_is_refused_at_its_header),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
