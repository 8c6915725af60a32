#include "codec_fixture.h"

#include <cotrain/aggregate.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define SENDERS_MAX 24

__extension__ typedef __int128 wide;

struct world {
    struct ct_tensor tensors[FIXTURE_TENSOR_COUNT];
    struct ct_layout layout;
    struct ct_chunks chunks;
    struct ct_update updates[SENDERS_MAX];
    struct ct_sender senders[SENDERS_MAX];
    uint32_t count;
    float *base, *moved, *expected;
};

static void world_open(struct world *world, const struct ct_tensor *tensors, uint32_t tensor_count,
                       uint32_t senders) {
    memset(world, 0, sizeof *world);
    memcpy(world->tensors, tensors, tensor_count * sizeof *tensors);
    world->layout = fixture_layout(world->tensors, tensor_count);
    assert_int_equal(ct_chunks_init(&world->chunks, &world->layout), CT_OK);
    world->count = senders;
    for (uint32_t i = 0; i < senders; i++) {
        world->updates[i].header.steps = 15;
        world->updates[i].codes = calloc(world->chunks.count, sizeof(uint16_t));
        world->updates[i].positions = calloc((size_t)world->chunks.selected_total, 2);
        world->updates[i].negative = calloc((size_t)world->chunks.selected_total, 1);
        assert_non_null(world->updates[i].negative);
        world->senders[i] = (struct ct_sender){&world->updates[i], 1000, true};
    }
    world->base = calloc(world->layout.parameters, sizeof(float));
    world->moved = calloc(world->layout.parameters, sizeof(float));
    world->expected = calloc(world->layout.parameters, sizeof(float));
    assert_non_null(world->expected);
}

static void world_close(struct world *world) {
    ct_chunks_deinit(&world->chunks);
    for (uint32_t i = 0; i < world->count; i++) {
        ct_update_deinit(&world->updates[i]);
    }
    free(world->base);
    free(world->moved);
    free(world->expected);
}

static double scale_of(uint32_t code) {
    return code == 0 ? 0.0 : ldexp(1024 + (int)(code % 1024), (int)(code / 1024) - 51);
}

static void set_norm(const struct ct_chunks *chunks, struct ct_update *update) {
    double squares = 0.0;
    for (uint32_t c = 0; c < chunks->count; c++) {
        squares +=
            chunks->chunks[c].selected * scale_of(update->codes[c]) * scale_of(update->codes[c]);
    }
    update->norm = sqrt(squares);
}

/* Random codes between low and high, random ascending positions and signs. */
static void draw(struct world *world, uint32_t sender, uint32_t low, uint32_t high,
                 uint64_t *seed) {
    struct ct_update *update = &world->updates[sender];
    size_t first = 0;
    for (uint32_t c = 0; c < world->chunks.count; c++) {
        const struct ct_chunk *chunk = &world->chunks.chunks[c];
        update->codes[c] = (uint16_t)(low + fixture_random(seed) % (high - low + 1));
        if (fixture_random(seed) % 16 == 0) {
            update->codes[c] = 0;
        }
        uint32_t taken = 0;
        for (uint32_t j = 0; j < chunk->values && taken < chunk->selected; j++) {
            const uint32_t left = chunk->values - j;
            if (fixture_random(seed) % left < chunk->selected - taken) {
                update->positions[first + taken] = (uint16_t)j;
                update->negative[first + taken] = fixture_random(seed) % 2;
                taken++;
            }
        }
        first += chunk->selected;
    }
    set_norm(&world->chunks, update);
}

/* The slow definition: dense, wide integers, medians by counting, the cap by trying every code. */

static double slow_median(const double *values, const wide *weights, uint32_t n) {
    double best = HUGE_VAL;
    wide total = 0;
    for (uint32_t i = 0; i < n; i++) {
        total += weights[i];
    }
    for (uint32_t i = 0; i < n; i++) {
        wide reached = 0;
        for (uint32_t j = 0; j < n; j++) {
            reached += values[j] <= values[i] ? weights[j] : 0;
        }
        best = 2 * reached >= total && values[i] < best ? values[i] : best;
    }
    return best;
}

struct slow {
    wide weight[SENDERS_MAX]; /* capped */
    wide omega[SENDERS_MAX];  /* Ω */
    wide clip[SENDERS_MAX];
    wide total_omega;
    bool established[SENDERS_MAX];
};

static void slow_weights(const struct world *world, struct slow *slow) {
    const uint32_t n = world->count;
    wide total = 0;
    bool any = false;
    memset(slow, 0, sizeof *slow);
    for (uint32_t i = 0; i < n; i++) {
        total += world->senders[i].weight;
        any = any || world->senders[i].established;
    }
    double norms[SENDERS_MAX];
    double votes[SENDERS_MAX] = {0};
    wide vote_weights[SENDERS_MAX] = {0};
    uint32_t voters = 0;
    for (uint32_t i = 0; i < n; i++) {
        slow->established[i] = world->senders[i].established || !any;
        wide cap = total / 10;
        cap = 2 * total / n > cap ? 2 * total / n : cap;
        slow->weight[i] = world->senders[i].weight;
        slow->weight[i] = slow->weight[i] > cap ? cap : slow->weight[i];
        slow->omega[i] = slow->weight[i] * (1 << 22) / total;
        slow->total_omega += slow->omega[i];
        norms[i] = world->updates[i].norm / sqrt(world->updates[i].header.steps);
        if (slow->established[i]) {
            votes[voters] = norms[i];
            vote_weights[voters++] = slow->weight[i];
        }
    }
    const double median = slow_median(votes, vote_weights, voters);
    for (uint32_t i = 0; i < n; i++) {
        slow->clip[i] = 32768;
        if (norms[i] > 0.0 && 2.0 * median / norms[i] < 1.0) {
            slow->clip[i] = (wide)floor(2.0 * median / norms[i] * 32768.0);
        }
    }
}

static uint16_t slow_cap(const struct world *world, const struct slow *slow, uint32_t c) {
    double votes[SENDERS_MAX] = {0};
    wide vote_weights[SENDERS_MAX] = {0};
    uint32_t voters = 0;
    for (uint32_t i = 0; i < world->count; i++) {
        if (slow->established[i]) {
            votes[voters] = scale_of(world->updates[i].codes[c]);
            vote_weights[voters++] = slow->weight[i];
        }
    }
    const double most = 3.0 * slow_median(votes, vote_weights, voters);
    uint32_t best = 0;
    for (uint32_t code = 1024; code <= 65535; code++) {
        best = scale_of(code) <= most ? code : best;
    }
    return (uint16_t)best;
}

static float slow_value(const struct world *world, const struct slow *slow, uint32_t c,
                        size_t first, uint16_t cap, uint32_t j, float alpha, float theta) {
    wide established = 0;
    wide newcomers = 0;
    wide normaliser = 0;
    bool sent = false;
    for (uint32_t i = 0; i < world->count; i++) {
        const struct ct_update *update = &world->updates[i];
        for (uint32_t s = 0; s < world->chunks.chunks[c].selected; s++) {
            if (update->codes[c] == 0 || update->positions[first + s] != j) {
                continue;
            }
            const uint32_t code = update->codes[c] < cap ? update->codes[c] : cap;
            wide term = cap / 1024 - code / 1024 > 31
                            ? 0
                            : ((wide)(1024 + code % 1024) << 20) >> (cap / 1024 - code / 1024);
            term *= (slow->omega[i] * slow->clip[i]) >> 15;
            term = update->negative[first + s] ? -term : term;
            established += slow->established[i] ? term : 0;
            newcomers += slow->established[i] ? 0 : term;
            normaliser += slow->established[i] ? slow->omega[i] : 0;
            sent = true;
        }
    }
    if (!sent || cap == 0) {
        return theta;
    }
    const wide bound = (wide)1 << 53;
    assert_true(established <= bound && established >= -bound && newcomers <= bound &&
                newcomers >= -bound);
    double mean = normaliser > 0 ? (double)established / (double)normaliser : 0.0;
    mean += (double)newcomers / (double)slow->total_omega;
    float g = (float)(mean * ldexp(1.0, cap / 1024 - 71));
    g = fabsf(g) < 0x1p-100f ? 0.0f : g;
    const float moved = fmaf(-alpha, g, theta);
    return fpclassify(moved) == FP_SUBNORMAL ? copysignf(0.0f, moved) : moved;
}

static void slow_aggregate(struct world *world, float alpha) {
    struct slow slow;
    slow_weights(world, &slow);
    size_t first = 0;
    for (uint32_t c = 0; c < world->chunks.count; c++) {
        const struct ct_chunk *chunk = &world->chunks.chunks[c];
        const uint16_t cap = slow_cap(world, &slow, c);
        uint32_t j = 0;
        for (uint32_t row = 0; row < chunk->rows; row++) {
            for (uint32_t column = 0; column < chunk->columns; column++, j++) {
                const size_t at = chunk->offset + (size_t)row * chunk->stride + column;
                world->expected[at] =
                    slow_value(world, &slow, c, first, cap, j, alpha, world->base[at]);
            }
        }
        first += chunk->selected;
    }
}

/* Aggregates and compares with the slow definition to the bit. */
static void check(struct world *world, float alpha) {
    struct ct_sender_share shares[SENDERS_MAX];
    assert_int_equal(ct_aggregate(&world->chunks, world->senders, world->count, alpha, world->base,
                                  world->moved, shares),
                     CT_OK);
    slow_aggregate(world, alpha);
    const size_t bytes = world->layout.parameters * sizeof(float);
    assert_memory_equal(world->moved, world->expected, bytes);
    struct slow slow;
    slow_weights(world, &slow);
    for (uint32_t i = 0; i < world->count; i++) {
        assert_int_equal(shares[i].weight_q22, (uint32_t)slow.omega[i]);
        assert_int_equal(shares[i].clip_q15, (uint32_t)slow.clip[i]);
    }
}

static void draw_base(struct world *world, uint64_t *seed) {
    for (size_t i = 0; i < world->layout.parameters; i++) {
        world->base[i] = fixture_normal(seed);
    }
}

static void any_mixture_equals_the_slow_definition(void **state) {
    (void)state;
    const struct ct_tensor tensors[] = FIXTURE_TENSORS;
    uint64_t seed = 1;
    for (uint32_t trial = 0; trial < 18; trial++) {
        static const uint32_t counts[] = {1, 2, 3, 3, 4, 7};
        struct world world;
        world_open(&world, tensors, FIXTURE_TENSOR_COUNT, counts[trial % 6]);
        draw_base(&world, &seed);
        for (uint32_t i = 0; i < world.count; i++) {
            if (trial < 6) { /* alike, as in honest work */
                draw(&world, i, 35000, 37000, &seed);
            } else if (trial < 12) { /* clips and caps at work */
                draw(&world, i, 30000 + 3000 * (i % 4), 36000 + 3000 * (i % 4), &seed);
            } else {
                draw(&world, i, 1024, 65535, &seed);
            }
            world.senders[i].weight = 1 + fixture_random(&seed) % (trial % 2 ? 100000 : 10);
            world.senders[i].established = trial % 3 == 0 || fixture_random(&seed) % 2 == 0;
            world.updates[i].header.steps = 8 + (uint32_t)(fixture_random(&seed) % 57);
        }
        check(&world, trial % 2 ? 1.0f : 0.65f);
        world_close(&world);
    }
}

static void many_senders_and_weight_caps(void **state) {
    (void)state;
    const struct ct_tensor tensors[] = {
        {.name = "a", .kind = CT_TENSOR_VECTOR, .rows = 1, .columns = 500}};
    uint64_t seed = 2;
    for (uint32_t count = 18; count <= SENDERS_MAX; count++) { /* the cap's rule changes at 20 */
        struct world world;
        world_open(&world, tensors, 1, count);
        draw_base(&world, &seed);
        for (uint32_t i = 0; i < count; i++) {
            draw(&world, i, 34000, 38000, &seed);
            world.senders[i].weight = i == 0 ? CT_WEIGHT_MAX : 1 + fixture_random(&seed) % 1000;
            world.senders[i].established = i % 3 != 0;
        }
        check(&world, 1.0f);
        world_close(&world);
    }
}

static void the_order_of_senders_is_not_in_the_bits(void **state) {
    (void)state;
    const struct ct_tensor tensors[] = FIXTURE_TENSORS;
    struct world world;
    world_open(&world, tensors, FIXTURE_TENSOR_COUNT, 5);
    uint64_t seed = 3;
    draw_base(&world, &seed);
    for (uint32_t i = 0; i < world.count; i++) {
        draw(&world, i, 34000, 40000, &seed);
        world.senders[i].weight = 1 + fixture_random(&seed) % 50;
        world.senders[i].established = i < 3;
    }
    check(&world, 0.9f);
    const size_t bytes = world.layout.parameters * sizeof(float);
    assert_memory_not_equal(world.moved, world.base, bytes);
    for (int trial = 0; trial < 20; trial++) {
        const uint32_t a = (uint32_t)(fixture_random(&seed) % 5);
        const uint32_t b = (uint32_t)(fixture_random(&seed) % 5);
        const struct ct_sender swapped = world.senders[a];
        world.senders[a] = world.senders[b];
        world.senders[b] = swapped;
        assert_int_equal(ct_aggregate(&world.chunks, world.senders, world.count, 0.9f, world.base,
                                      world.moved, NULL),
                         CT_OK);
        assert_memory_equal(world.moved, world.expected, bytes);
    }
    /* In place. */
    assert_int_equal(
        ct_aggregate(&world.chunks, world.senders, world.count, 0.9f, world.base, world.base, NULL),
        CT_OK);
    assert_memory_equal(world.base, world.expected, bytes);
    world_close(&world);
}

/* A model of one chunk of 100 values, two of them sent. */
static void small_open(struct world *world, uint32_t senders) {
    const struct ct_tensor tensors[] = {
        {.name = "a", .kind = CT_TENSOR_VECTOR, .rows = 1, .columns = 100}};
    world_open(world, tensors, 1, senders);
}

static void small_send(struct world *world, uint32_t sender, uint32_t code, int first, int second,
                       int first_negative, int second_negative) {
    struct ct_update *update = &world->updates[sender];
    update->codes[0] = (uint16_t)code;
    update->positions[0] = (uint16_t)first;
    update->positions[1] = (uint16_t)second;
    update->negative[0] = (uint8_t)first_negative;
    update->negative[1] = (uint8_t)second_negative;
    set_norm(&world->chunks, update);
}

#define ONE (41u << 10) /* the code of 1.0 */

static void one_sender_moves_by_its_scale(void **state) {
    (void)state;
    for (int established = 0; established < 2; established++) {
        struct world world;
        small_open(&world, 1);
        world.senders[0].established = established;
        small_send(&world, 0, ONE + 512, 10, 20, 0, 1); /* 1.5 */
        world.base[11] = -0.0f;
        check(&world, 0.5f);
        assert_true(world.moved[10] == -0.75f && world.moved[20] == 0.75f);
        assert_true(world.moved[11] == 0.0f && signbit(world.moved[11]));
        world_close(&world);
    }
}

static void opposite_signs_cancel_and_count(void **state) {
    (void)state;
    struct world world;
    small_open(&world, 4);
    small_send(&world, 0, ONE, 10, 20, 0, 0);
    small_send(&world, 1, ONE, 10, 20, 1, 0);
    small_send(&world, 2, ONE, 20, 30, 0, 0);
    small_send(&world, 3, ONE, 20, 31, 1, 0);
    check(&world, 1.0f);
    assert_true(world.moved[10] == 0.0f);  /* two against each other */
    assert_true(world.moved[20] == -0.5f); /* three against one, over four */
    assert_true(world.moved[30] == -1.0f); /* alone: over those who sent it */
    world_close(&world);
}

static void newcomers_are_divided_by_all(void **state) {
    (void)state;
    struct world world;
    small_open(&world, 4);
    for (uint32_t i = 0; i < 4; i++) {
        small_send(&world, i, ONE, 10 + (int)i, 20, 0, 0);
    }
    world.senders[3].established = false;
    check(&world, 1.0f);
    assert_true(world.moved[10] == -1.0f);  /* an established one alone */
    assert_true(world.moved[13] == -0.25f); /* a newcomer alone */
    assert_true(world.moved[20] == -1.25f); /* both rules at once */
    world_close(&world);
}

static void one_sender_cannot_outweigh_twice_its_share(void **state) {
    (void)state;
    struct world world;
    small_open(&world, 4);
    for (uint32_t i = 0; i < 4; i++) {
        small_send(&world, i, ONE, 10, 20, i == 0, 0);
        world.senders[i].weight = i == 0 ? 97 : 1;
    }
    struct ct_sender_share shares[4];
    assert_int_equal(
        ct_aggregate(&world.chunks, world.senders, 4, 1.0f, world.base, world.moved, shares),
        CT_OK);
    assert_int_equal(shares[0].weight_q22, 1 << 21); /* 2/n of 100 */
    assert_int_equal(shares[1].weight_q22, (1 << 22) / 100);
    check(&world, 1.0f);
    world_close(&world);
}

static void loud_senders_are_clipped_and_capped(void **state) {
    (void)state;
    struct world world;
    small_open(&world, 3);
    small_send(&world, 0, ONE, 10, 20, 0, 0);
    small_send(&world, 1, ONE, 11, 20, 0, 0);
    small_send(&world, 2, ONE + (4u << 10), 12, 20, 1, 1); /* 16 */
    struct ct_sender_share shares[3];
    assert_int_equal(
        ct_aggregate(&world.chunks, world.senders, 3, 1.0f, world.base, world.moved, shares),
        CT_OK);
    assert_int_equal(shares[0].clip_q15, 32768);
    assert_int_equal(shares[2].clip_q15, 32768 / 8); /* twice the median over 16 */
    check(&world, 1.0f);
    assert_true(world.moved[10] == -1.0f);
    assert_true(world.moved[12] > 0.374f && world.moved[12] < 0.376f); /* 3 · 1/8 */
    world_close(&world);
}

static void a_median_of_zero_silences_the_rest(void **state) {
    (void)state;
    struct world world;
    small_open(&world, 3);
    small_send(&world, 0, 0, 0, 0, 0, 0);
    small_send(&world, 1, 0, 0, 0, 0, 0);
    small_send(&world, 2, ONE, 12, 20, 1, 1);
    check(&world, 1.0f);
    assert_memory_equal(world.moved, world.base, 100 * sizeof(float));
    small_send(&world, 2, 0, 0, 0, 0, 0);
    check(&world, 1.0f);
    world_close(&world);
}

static void extreme_scales_stay_in_bounds(void **state) {
    (void)state;
    static const uint32_t codes[][3] = {
        {65535, 65535, 65535},
        {1024, 1024, 1024},
        {1024, 65535, 65535},
        {1024, 1024, 65535},
        {0, 65535, 65535},
        {33 << 10, 65535, 63 << 10},
        {31 << 10, 63 << 10, 63 << 10},
    };
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        for (int newcomers = 0; newcomers < 3; newcomers++) {
            struct world world;
            small_open(&world, 3);
            for (uint32_t s = 0; s < 3; s++) {
                small_send(&world, s, codes[i][s], 10 + (int)s, 20, s == 2, 0);
                world.senders[s].established = (int)s >= newcomers;
                world.senders[s].weight = CT_WEIGHT_MAX;
            }
            world.base[10] = 0x1p-126f; /* a result may fall below the normal numbers */
            world.base[11] = -0x1p-126f;
            check(&world, 1.0f);
            world_close(&world);
        }
    }
}

static void no_subnormal_is_stored(void **state) {
    (void)state;
    struct world world;
    small_open(&world, 1);
    small_send(&world, 0, 1024, 10, 20, 0, 1); /* 2^-40 */
    const float alpha = 0x1.000002p-90f;
    world.base[10] = 0x1p-130f + 0x1p-126f; /* θ' = θ − 2^-130, about */
    world.base[20] = -world.base[10];
    check(&world, alpha);
    assert_true(world.moved[10] == 0.0f || fabsf(world.moved[10]) >= 0x1p-126f);
    const float exact = fmaf(-alpha, 0x1p-40f, world.base[10]);
    assert_true(fpclassify(exact) != FP_SUBNORMAL ||
                (world.moved[10] == 0.0f && !signbit(world.moved[10])));
    assert_true(fpclassify(exact) != FP_SUBNORMAL || signbit(world.moved[20]));
    world.base[10] = 0x1.8p-126f;
    world.base[20] = -0x1.8p-126f;
    check(&world, 0x1p-86f); /* 1.5 · 2^-126 − 2^-126 */
    assert_true(world.moved[10] == 0.0f && !signbit(world.moved[10]));
    assert_true(world.moved[20] == 0.0f && signbit(world.moved[20]));
    world_close(&world);
}

static void weights_out_of_range_are_refused(void **state) {
    (void)state;
    struct world world;
    small_open(&world, 2);
    world.senders[1].weight = 0;
    assert_int_equal(
        ct_aggregate(&world.chunks, world.senders, 2, 1.0f, world.base, world.moved, NULL),
        CT_ERR_RULE);
    world.senders[1].weight = CT_WEIGHT_MAX + 1;
    assert_int_equal(
        ct_aggregate(&world.chunks, world.senders, 2, 1.0f, world.base, world.moved, NULL),
        CT_ERR_RULE);
    world_close(&world);
}

static void the_outer_rate_is_the_written_fraction(void **state) {
    (void)state;
    assert_true(ct_outer_rate(1, 1) == 1.0f && ct_outer_rate(3, 3) == 1.0f);
    assert_true(ct_outer_rate(3, 4) == 1.0f && ct_outer_rate(4, 4) == 0.65f);
    assert_true(ct_outer_rate(150, 200) == 1.0f && ct_outer_rate(200, 200) == 0.65f);
    assert_true(ct_outer_rate(175, 200) == 0.825f);
    assert_true(ct_outer_rate(UINT32_MAX, UINT32_MAX) == 0.65f);
    for (uint32_t rounds = 1; rounds < 300; rounds++) {
        for (uint32_t round = 1; round <= rounds; round++) {
            const int64_t quarter = rounds / 4;
            const int64_t past = (int64_t)round - (rounds - quarter);
            const float rate = ct_outer_rate(round, rounds);
            if (past <= 0) {
                assert_true(rate == 1.0f);
                continue;
            }
            /* |rate − p/q| ≤ half a unit: |2^25·rate·q − 2^25·p| ≤ q, in integers. */
            const int64_t p = 20 * quarter - 7 * past;
            const int64_t q = 20 * quarter;
            const int64_t off = (int64_t)(rate * 0x1p24f) * 2 * q - (p << 25);
            assert_true(off <= q && off >= -q);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_mixture_equals_the_slow_definition),
        cmocka_unit_test(many_senders_and_weight_caps),
        cmocka_unit_test(the_order_of_senders_is_not_in_the_bits),
        cmocka_unit_test(one_sender_moves_by_its_scale),
        cmocka_unit_test(opposite_signs_cancel_and_count),
        cmocka_unit_test(newcomers_are_divided_by_all),
        cmocka_unit_test(one_sender_cannot_outweigh_twice_its_share),
        cmocka_unit_test(loud_senders_are_clipped_and_capped),
        cmocka_unit_test(a_median_of_zero_silences_the_rest),
        cmocka_unit_test(extreme_scales_stay_in_bounds),
        cmocka_unit_test(no_subnormal_is_stored),
        cmocka_unit_test(weights_out_of_range_are_refused),
        cmocka_unit_test(the_outer_rate_is_the_written_fraction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
