#include "codec_fixture.h"

#include <cotrain/codec.h>
#include <cotrain/mode.h>

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

/* The slow definition, written from the text alone: a full sort, a bit at a time. */

struct bits {
    uint8_t *bytes;
    size_t count;
};

static void push(struct bits *bits, unsigned bit) {
    if (bits->count % 8 == 0) {
        bits->bytes[bits->count / 8] = 0;
    }
    bits->bytes[bits->count / 8] |= (uint8_t)(bit << (bits->count % 8));
    bits->count++;
}

/* The payload of what a decoded update holds; the length. */
static size_t slow_pack(const struct ct_chunks *chunks, const struct ct_update *update,
                        uint8_t *out) {
    memcpy(out, "CTUP\1\0\0\0", 8);
    memcpy(out + 8, update->header.assignment.bytes, 32);
    struct bits codes = {.bytes = out + 56};
    struct bits stream = {.bytes = out + 56 + 2 * (size_t)chunks->count};
    size_t first = 0;
    for (uint32_t c = 0; c < chunks->count; c++) {
        const uint32_t k = chunks->chunks[c].selected;
        for (int bit = 0; bit < 16; bit++) {
            push(&codes, (unsigned)update->codes[c] >> bit & 1u);
        }
        for (uint32_t i = 0; i < k && update->codes[c] != 0; i++) {
            const uint16_t *positions = update->positions + first;
            const int gap = i == 0 ? positions[0] : positions[i] - positions[i - 1] - 1;
            for (int quotient = gap / 32; quotient > 0; quotient--) {
                push(&stream, 1);
            }
            push(&stream, 0);
            for (int bit = 0; bit < 5; bit++) {
                push(&stream, (unsigned)(gap % 32) >> bit & 1u);
            }
        }
        for (uint32_t i = 0; i < k && update->codes[c] != 0; i++) {
            push(&stream, update->negative[first + i]);
        }
        first += k;
    }
    const size_t body = 2 * (size_t)chunks->count + (stream.count + 7) / 8;
    struct bits header = {.bytes = out + 40};
    const uint64_t fields[3] = {update->header.steps, chunks->count, body};
    for (int field = 0; field < 3; field++) {
        for (int bit = 0; bit < (field < 2 ? 32 : 64); bit++) {
            push(&header, (unsigned)(fields[field] >> bit & 1));
        }
    }
    return 56 + body;
}

static double slow_scale(uint32_t code) {
    return code == 0 ? 0.0 : ldexp(1024 + (int)(code % 1024), (int)(code / 1024) - 51);
}

/* The nearest scale by bisection over all codes, ties to the even one. */
static uint16_t slow_code(double mean) {
    if (mean >= slow_scale(65535)) {
        return 65535;
    }
    uint32_t low = 1024;
    uint32_t high = 65535;
    if (mean < slow_scale(low)) {
        /* One more octave below, whose spacing is half as wide, decides what rounds up. */
        return mean >= slow_scale(low) - ldexp(1.0, -52) ? 1024 : 0;
    }
    while (high - low > 1) {
        const uint32_t middle = (low + high) / 2;
        if (slow_scale(middle) <= mean) {
            low = middle;
        } else {
            high = middle;
        }
    }
    const double below = mean - slow_scale(low);
    const double above = slow_scale(high) - mean;
    return (uint16_t)(below < above || (below == above && low % 2 == 0) ? low : high);
}

static const float *sorted_values;

static int by_magnitude_then_index(const void *left, const void *right) {
    const uint16_t a = *(const uint16_t *)left;
    const uint16_t b = *(const uint16_t *)right;
    const float x = fabsf(sorted_values[a]);
    const float y = fabsf(sorted_values[b]);
    return x != y ? (x < y) - (x > y) : (a > b) - (a < b);
}

static int by_index(const void *left, const void *right) {
    return *(const uint16_t *)left - *(const uint16_t *)right;
}

static size_t slow_encode(const struct ct_chunks *chunks, const struct ct_update_header *header,
                          const float *base, const float *local, float *residual, uint8_t *out) {
    struct ct_update update = {
        .header = *header,
        .codes = calloc(chunks->count, sizeof(uint16_t)),
        .positions = calloc((size_t)chunks->selected_total, sizeof(uint16_t)),
        .negative = calloc((size_t)chunks->selected_total, 1),
    };
    const struct ct_mode mode = ct_mode_enter();
    size_t first = 0;
    for (uint32_t c = 0; c < chunks->count; c++) {
        const struct ct_chunk *chunk = &chunks->chunks[c];
        float u[4096];
        uint16_t order[4096];
        size_t at[4096];
        uint32_t n = 0;
        for (uint32_t row = 0; row < chunk->rows; row++) {
            for (uint32_t column = 0; column < chunk->columns; column++) {
                at[n] = chunk->offset + (size_t)row * chunk->stride + column;
                const float delta = base[at[n]] - local[at[n]];
                u[n] = fmaf(0.95f, residual[at[n]], delta);
                order[n] = (uint16_t)n;
                residual[at[n]] = u[n];
                n++;
            }
        }
        const uint32_t k = chunk->selected;
        sorted_values = u;
        qsort(order, n, sizeof order[0], by_magnitude_then_index);
        qsort(order, k, sizeof order[0], by_index);
        double sum = 0.0;
        for (uint32_t i = 0; i < k; i++) {
            sum += (double)fabsf(u[order[i]]);
        }
        update.codes[c] = slow_code(sum / k);
        for (uint32_t i = 0; i < k && update.codes[c] != 0; i++) {
            update.positions[first + i] = order[i];
            update.negative[first + i] = u[order[i]] < 0.0f;
            const float sign = u[order[i]] < 0.0f ? -1.0f : 1.0f;
            residual[at[order[i]]] = u[order[i]] - sign * (float)slow_scale(update.codes[c]);
        }
        first += k;
    }
    ct_mode_leave(mode);
    const size_t length = slow_pack(chunks, &update, out);
    ct_update_deinit(&update);
    return length;
}

struct world {
    struct ct_tensor tensors[FIXTURE_TENSOR_COUNT];
    struct ct_layout layout;
    struct ct_chunks chunks;
    float *base, *local, *residual, *residual_twin;
    uint8_t *payload, *twin;
    size_t room;
};

static const struct ct_update_header header = {.assignment = {{1, 2, 3}}, .steps = 15};

static void world_open(struct world *world, const struct ct_tensor *tensors, uint32_t count) {
    memset(world, 0, sizeof *world);
    memcpy(world->tensors, tensors, count * sizeof *tensors);
    world->layout = fixture_layout(world->tensors, count);
    assert_int_equal(ct_chunks_init(&world->chunks, &world->layout), CT_OK);
    const size_t n = world->layout.parameters;
    world->base = calloc(n, sizeof(float));
    world->local = calloc(n, sizeof(float));
    world->residual = calloc(n, sizeof(float));
    world->residual_twin = calloc(n, sizeof(float));
    world->room = ct_update_bytes_max(&world->chunks);
    /* Exactly what is promised, so that the address sanitizer sees a byte too many. */
    world->payload = calloc(world->room, 1);
    world->twin = calloc(world->room + 64, 1);
    assert_non_null(world->twin);
}

static void world_close(struct world *world) {
    ct_chunks_deinit(&world->chunks);
    free(world->base);
    free(world->local);
    free(world->residual);
    free(world->residual_twin);
    free(world->payload);
    free(world->twin);
}

/* Encodes both ways, compares payloads and residuals; the length. */
static size_t encode_both(struct world *world) {
    const size_t n = world->layout.parameters;
    memcpy(world->residual_twin, world->residual, n * sizeof(float));
    size_t length = 0;
    ct_update_encode(&world->chunks, &header, world->base, world->local, world->residual,
                     world->payload, &length);
    const size_t slow = slow_encode(&world->chunks, &header, world->base, world->local,
                                    world->residual_twin, world->twin);
    assert_int_equal(length, slow);
    assert_memory_equal(world->payload, world->twin, length);
    assert_memory_equal(world->residual, world->residual_twin, n * sizeof(float));
    return length;
}

static void decode_ok(const struct world *world, size_t length, struct ct_update *update) {
    const struct ct_bytes bytes = {world->payload, length};
    assert_int_equal(ct_update_decode(&world->chunks, bytes, update), CT_OK);
}

static void rounds_equal_the_slow_definition(void **state) {
    (void)state;
    const struct ct_tensor tensors[] = FIXTURE_TENSORS;
    struct world world;
    world_open(&world, tensors, FIXTURE_TENSOR_COUNT);
    uint64_t seed = 1;
    for (int round = 0; round < 12; round++) {
        const float width = ldexpf(1.0f, -round * 3);
        for (size_t i = 0; i < world.layout.parameters; i++) {
            world.base[i] = fixture_normal(&seed);
            world.local[i] = world.base[i] + width * fixture_normal(&seed);
            if (round % 3 == 2) { /* few distinct values: many ties */
                world.local[i] = world.base[i] + (float)(fixture_random(&seed) % 3) - 1.0f;
                world.residual[i] = 0.0f;
            }
        }
        const size_t length = encode_both(&world);
        struct ct_update update;
        decode_ok(&world, length, &update);
        assert_memory_equal(&update.header, &header, sizeof header);
        assert_int_equal(slow_pack(&world.chunks, &update, world.twin), length);
        assert_memory_equal(world.twin, world.payload, length);
        double squares = 0.0;
        for (uint32_t c = 0; c < world.chunks.count; c++) {
            const double scale = slow_scale(update.codes[c]);
            squares += world.chunks.chunks[c].selected * scale * scale;
        }
        assert_true(update.norm == sqrt(squares));
        ct_update_deinit(&update);
    }
    world_close(&world);
}

static void the_bytes_of_a_small_update_are_these(void **state) {
    (void)state;
    const struct ct_tensor tensors[] = {
        {.name = "a", .kind = CT_TENSOR_VECTOR, .rows = 1, .columns = 100}, /* k = 2 */
        {.name = "b", .kind = CT_TENSOR_VECTOR, .rows = 1, .columns = 5},
        {.name = "c", .kind = CT_TENSOR_VECTOR, .rows = 1, .columns = 1},
    };
    struct world world;
    world_open(&world, tensors, 3);
    for (int i = 0; i < 100; i++) {
        world.base[i] = 0.25f;
    }
    world.base[3] = 1.5f;
    world.base[90] = -0.5f;
    world.base[105] = -3.0f;
    const size_t length = encode_both(&world);
    /* Scales 1.0, 0 and 3.0; gaps 3 (0 11000) and 86 (110 01101), signs 0 1; gap 0 (0 00000),
     * sign 1. */
    uint8_t golden[56 + 9] = {'C', 'T', 'U', 'P', 1, 0, 0, 0, 1, 2, 3};
    golden[40] = 15;
    golden[44] = 3;
    golden[48] = 9;
    static const uint8_t body[9] = {0x00, 0xa4, 0x00, 0x00, 0x00, 0xaa, 0xc6, 0xac, 0x40};
    memcpy(golden + 56, body, 9);
    assert_int_equal(length, sizeof golden);
    assert_memory_equal(world.payload, golden, sizeof golden);
    assert_true(world.residual[3] == 0.5f && world.residual[90] == 0.5f);
    assert_true(world.residual[0] == 0.25f && world.residual[105] == 0.0f);
    world_close(&world);
}

static void ties_go_to_the_lower_index(void **state) {
    (void)state;
    const struct ct_tensor tensors[] = {
        {.name = "a", .kind = CT_TENSOR_MATRIX, .rows = 64, .columns = 64}};
    struct world world;
    world_open(&world, tensors, 1);
    for (int i = 0; i < 4096; i++) {
        world.base[i] = i % 2 == 0 ? 1.0f : -1.0f;
    }
    world.base[4000] = 2.0f;
    const size_t length = encode_both(&world);
    struct ct_update update;
    decode_ok(&world, length, &update);
    for (int i = 0; i < 63; i++) {
        assert_int_equal(update.positions[i], i);
        assert_int_equal(update.negative[i], i % 2);
    }
    assert_int_equal(update.positions[63], 4000);
    ct_update_deinit(&update);
    world_close(&world);
}

static void zeros_have_no_positions_and_keep_their_signs(void **state) {
    (void)state;
    const struct ct_tensor tensors[] = {
        {.name = "a", .kind = CT_TENSOR_MATRIX, .rows = 64, .columns = 64}};
    struct world world;
    world_open(&world, tensors, 1);
    world.base[1] = -0.0f; /* −0 − 0 = −0; fma(0.95, −0, −0) = −0 */
    world.residual[1] = -0.0f;
    size_t length = encode_both(&world);
    assert_int_equal(length, CT_UPDATE_HEADER_BYTES + 2);
    assert_true(world.residual[1] == 0.0f && signbit(world.residual[1]));
    assert_false(signbit(world.residual[0]));
    /* Too small for a scale: nothing is sent, all of it stays. */
    world.base[7] = 0x1p-60f;
    length = encode_both(&world);
    assert_int_equal(length, CT_UPDATE_HEADER_BYTES + 2);
    assert_true(world.residual[7] == 0x1p-60f);
    /* Fewer values than k: zeros are sent as positive ones, −0 too. */
    world.base[7] = -6.4f;
    length = encode_both(&world);
    struct ct_update update;
    decode_ok(&world, length, &update);
    for (int i = 0; i < 64; i++) {
        assert_int_equal(update.positions[i], i);
        assert_int_equal(update.negative[i], i == 7);
    }
    assert_true(world.residual[1] == -(float)ct_scale_decode(update.codes[0]));
    ct_update_deinit(&update);
    world_close(&world);
}

static void extremes_saturate(void **state) {
    (void)state;
    const struct ct_tensor tensors[] = {
        {.name = "a", .kind = CT_TENSOR_VECTOR, .rows = 1, .columns = 3}};
    struct world world;
    world_open(&world, tensors, 1);
    world.base[2] = -1e30f;
    size_t length = encode_both(&world);
    assert_int_equal(world.payload[56] | world.payload[57] << 8, 65535);
    assert_true(world.residual[2] == -1e30f);
    /* What no sane run has: infinities become the largest finite value, NaN becomes +0. */
    world.residual[2] = 0.0f;
    world.base[0] = NAN;
    world.base[1] = FLT_MAX;
    world.local[1] = -FLT_MAX;
    world.base[2] = -INFINITY;
    ct_update_encode(&world.chunks, &header, world.base, world.local, world.residual, world.payload,
                     &length);
    assert_true(world.residual[0] == 0.0f && !signbit(world.residual[0]));
    assert_true(world.residual[1] == FLT_MAX && world.residual[2] == -FLT_MAX);
    struct ct_update update;
    decode_ok(&world, length, &update);
    assert_int_equal(update.positions[0], 1); /* the tie goes down */
    assert_int_equal(update.negative[0], 0);
    ct_update_deinit(&update);
    world_close(&world);
}

static void scale_codes_round_to_nearest_even(void **state) {
    (void)state;
    assert_int_equal(ct_scale_encode(0.0), 0);
    for (uint32_t code = 0; code <= 65535; code++) {
        assert_int_equal(ct_scale_valid((uint16_t)code), code == 0 || code > 1023);
        if (code == 0 || code > 1023) {
            const double value = slow_scale(code);
            assert_true(ct_scale_decode((uint16_t)code) == value);
            assert_int_equal(ct_scale_encode(value), code);
        }
        if (code > 1023 && code < 65535) {
            const double middle = (slow_scale(code) + slow_scale(code + 1)) / 2;
            assert_int_equal(ct_scale_encode(middle), code + code % 2);
            assert_int_equal(ct_scale_encode(nextafter(middle, 0.0)), code);
            assert_int_equal(ct_scale_encode(nextafter(middle, 1e9)), code + 1);
        }
    }
    assert_int_equal(ct_scale_encode(1e300), 65535);
    assert_int_equal(ct_scale_encode(nextafter(0x1p-40 - 0x1p-52, 0.0)), 0);
    assert_int_equal(ct_scale_encode(0x1p-40 - 0x1p-52), 1024); /* a tie, carried to the even one */
    assert_int_equal(ct_scale_encode(0x1p-41), 0);
    assert_int_equal(ct_scale_encode(0x1p-1074), 0);
}

/* Refused, or an update whose one encoding these bytes are; true in the second case. */
static bool canonical(const struct world *world, const uint8_t *bytes, size_t length) {
    /* A copy of just this length, so that the address sanitizer sees a read too far. */
    uint8_t *copy = malloc(length > 0 ? length : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, length);
    struct ct_update update;
    const enum ct_err err =
        ct_update_decode(&world->chunks, (struct ct_bytes){copy, length}, &update);
    if (err == CT_OK) {
        assert_int_equal(slow_pack(&world->chunks, &update, world->twin), length);
        assert_memory_equal(world->twin, bytes, length);
        ct_update_deinit(&update);
    } else {
        assert_int_equal(err, CT_ERR_FORMAT);
        assert_null(update.codes);
    }
    free(copy);
    return err == CT_OK;
}

static void set_body_length(uint8_t *payload, size_t length) {
    for (int i = 0; i < 8; i++) {
        payload[48 + i] = (uint8_t)((uint64_t)(length - 56) >> (8 * i));
    }
}

static size_t fill(struct world *world, uint64_t seed) {
    for (size_t i = 0; i < world->layout.parameters; i++) {
        world->base[i] = fixture_normal(&seed);
    }
    return encode_both(world);
}

static void flipped_bits_are_refused_or_mean_something_else(void **state) {
    (void)state;
    const struct ct_tensor tensors[] = FIXTURE_TENSORS;
    struct world world;
    world_open(&world, tensors, FIXTURE_TENSOR_COUNT);
    const size_t length = fill(&world, 2);
    unsigned accepted = 0;
    for (size_t bit = 0; bit < 8 * length; bit++) {
        world.payload[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        accepted += canonical(&world, world.payload, length) ? 1 : 0;
        world.payload[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    /* The digest's 256 bits, most of the scales, the signs: these mean something else. */
    assert_true(accepted > 256 + world.chunks.selected_total);
    assert_true(accepted < 8 * length - 200);
    world_close(&world);
}

static void cut_or_extended_payloads_are_refused(void **state) {
    (void)state;
    const struct ct_tensor tensors[] = FIXTURE_TENSORS;
    struct world world;
    world_open(&world, tensors, FIXTURE_TENSOR_COUNT);
    const size_t length = fill(&world, 3);
    uint8_t *bytes = calloc(world.room + 64, 1);
    assert_non_null(bytes);
    memcpy(bytes, world.payload, length);
    assert_true(canonical(&world, bytes, length));
    for (size_t cut = 0; cut < length; cut++) {
        assert_false(canonical(&world, bytes, cut));
        if (cut >= 56) {
            set_body_length(bytes, cut);
            assert_false(canonical(&world, bytes, cut));
            set_body_length(bytes, length);
        }
    }
    for (size_t extra = 1; extra < 64; extra++) {
        assert_false(canonical(&world, bytes, length + extra));
        set_body_length(bytes, length + extra);
        assert_false(canonical(&world, bytes, length + extra));
        set_body_length(bytes, length);
    }
    free(bytes);
    world_close(&world);
}

static void random_bytes_do_no_harm(void **state) {
    (void)state;
    const struct ct_tensor tensors[] = FIXTURE_TENSORS;
    struct world world;
    world_open(&world, tensors, FIXTURE_TENSOR_COUNT);
    const size_t length = fill(&world, 4);
    uint8_t *bytes = calloc(world.room + 64, 1);
    assert_non_null(bytes);
    uint64_t seed = 5;
    for (int i = 0; i < 4000; i++) {
        memcpy(bytes, world.payload, world.room);
        size_t n = length;
        const uint64_t kind = fixture_random(&seed) % 3;
        if (kind == 0) { /* noise of any length behind a good header */
            n = 56 + fixture_random(&seed) % (world.room + 8);
            for (size_t j = 56; j < n; j++) {
                bytes[j] = (uint8_t)fixture_random(&seed);
            }
            set_body_length(bytes, n);
        } else if (kind == 1) { /* good scales, a noisy stream */
            for (size_t j = 56 + 2 * (size_t)world.chunks.count; j < n; j++) {
                bytes[j] = (uint8_t)(fixture_random(&seed) & fixture_random(&seed));
            }
        } else {
            for (uint64_t j = fixture_random(&seed) % 8; j < 8; j++) {
                bytes[fixture_random(&seed) % n] = (uint8_t)fixture_random(&seed);
            }
        }
        (void)canonical(&world, bytes, n);
    }
    free(bytes);
    world_close(&world);
}

static void a_body_of_ones_is_refused(void **state) {
    (void)state;
    const struct ct_tensor tensors[] = {
        {.name = "a", .kind = CT_TENSOR_MATRIX, .rows = 64, .columns = 64}};
    struct world world;
    world_open(&world, tensors, 1);
    const size_t length = fill(&world, 6);
    memset(world.payload + 58, 0xff, length - 58);
    assert_false(canonical(&world, world.payload, length));
    world_close(&world);
}

static void a_full_chunk_takes_562_bits_and_at_most_590(void **state) {
    (void)state;
    const struct ct_tensor tensors[] = {
        {.name = "a", .kind = CT_TENSOR_MATRIX, .rows = 640, .columns = 640}};
    struct world world;
    world_open(&world, tensors, 1);
    size_t length = fill(&world, 7);
    const double mean = 8.0 * (double)(length - 56) / 100.0;
    assert_true(mean > 557.0 && mean < 567.0);
    assert_true(length < 56 + (100 * 590 + 7) / 8);
    /* The worst case: everything selected lies at the end of each chunk. */
    for (size_t i = 0; i < 640 * 640; i++) {
        world.base[i] = i / 640 % 64 == 63 ? 1.0f : 0.0f;
        world.residual[i] = 0.0f;
    }
    length = encode_both(&world);
    assert_int_equal(length, 56 + (100 * 590 + 7) / 8);
    assert_int_equal(length, world.room);
    world_close(&world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounds_equal_the_slow_definition),
        cmocka_unit_test(the_bytes_of_a_small_update_are_these),
        cmocka_unit_test(ties_go_to_the_lower_index),
        cmocka_unit_test(zeros_have_no_positions_and_keep_their_signs),
        cmocka_unit_test(extremes_saturate),
        cmocka_unit_test(scale_codes_round_to_nearest_even),
        cmocka_unit_test(flipped_bits_are_refused_or_mean_something_else),
        cmocka_unit_test(cut_or_extended_payloads_are_refused),
        cmocka_unit_test(random_bytes_do_no_harm),
        cmocka_unit_test(a_body_of_ones_is_refused),
        cmocka_unit_test(a_full_chunk_takes_562_bits_and_at_most_590),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
