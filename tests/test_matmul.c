#include "kernels/matmul.h"

#include <cotrain/isa.h>
#include <cotrain/mode.h>
#include <cotrain/philox.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct ct_ops definitions;

static uint32_t draw(void) {
    static const struct ct_philox philox = {{1, 2}, CT_STREAM_TEST};
    static uint64_t index;
    uint32_t block[4];
    ct_philox_block(&philox, index++, 0, block);
    return block[0];
}

/* Finite values of many magnitudes, so that flushing and signed zeros happen; one in 8 is ±0. */
static float any_value(void) {
    const uint32_t bits = draw();
    if (bits % 8 == 0) {
        return (bits & 8u) != 0 ? -0.0f : 0.0f;
    }
    const float sign = (bits & 16u) != 0 ? -1.0f : 1.0f;
    return sign * (1.0f + (float)(bits >> 9) * 0x1p-23f) * ldexpf(1.0f, (int)(draw() % 80) - 70);
}

static uint16_t any_bf16(void) {
    const float value = any_value();
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static float bf16_value(uint16_t half) {
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void *room(size_t bytes) {
    void *memory = malloc(bytes + 64);
    assert_non_null(memory);
    return memory;
}

struct shape {
    size_t m, n, k, extra; /* extra: how much the leading dimensions exceed the rows */
};

static const struct shape shapes[] = {
    {1, 1, 1, 0},     {1, 1, 2, 1},     {3, 5, 7, 2},      {14, 32, 64, 0},
    {15, 33, 65, 3},  {13, 17, 1, 1},   {28, 64, 3, 0},    {64, 64, 32, 5},
    {129, 31, 65, 0}, {7, 200, 130, 1}, {97, 48, 33, 7},   {5, 16, 0, 0},
    {1, 97, 40, 0},   {30, 1, 700, 0},  {29, 70, 1100, 2}, {9, 300, 520, 1},
};

struct data {
    struct ct_matmul job;
    void *a, *b;
    float *c;
    size_t c_bytes;
};

static void *operand(size_t count, bool bf16) {
    void *memory = room(count * sizeof(float));
    for (size_t i = 0; i < count; i++) {
        if (bf16) {
            ((uint16_t *)memory)[i] = any_bf16();
        } else {
            ((float *)memory)[i] = any_value();
        }
    }
    return memory;
}

static struct data make_of(const struct shape *shape, struct ct_matmul kind, bool bf16) {
    struct data data = {.job = kind};
    struct ct_matmul *job = &data.job;
    const enum ct_form form = kind.form;
    job->m = shape->m;
    job->n = shape->n;
    job->k = shape->k;
    job->threads = 1;
    job->lda = (form == CT_TN ? job->m : job->k) + shape->extra;
    job->ldb = (form == CT_NT ? job->k : job->n) + shape->extra;
    job->ldc = job->n + shape->extra;
    const size_t a_count = job->lda * (form == CT_TN ? job->k : job->m);
    const size_t b_count = job->ldb * (form == CT_NT ? job->n : job->k);
    data.c_bytes = job->ldc * job->m * sizeof(float);
    job->a = data.a = operand(a_count, bf16 && !kind.a_float);
    job->b = data.b = operand(b_count, bf16 && !kind.b_float);
    job->c = data.c = room(data.c_bytes);
    for (size_t i = 0; i < data.c_bytes / sizeof(float); i++) {
        data.c[i] = any_value();
    }
    return data;
}

static struct data make(const struct shape *shape, enum ct_form form, bool bf16, bool resume) {
    return make_of(shape, (struct ct_matmul){.form = form, .resume = resume}, bf16);
}

static void drop(struct data *data) {
    free(data->a);
    free(data->b);
    free(data->c);
}

/* An element as the chain sees it. */
static float value_at(const void *memory, size_t at, bool bf16, bool is_float) {
    if (bf16 && !is_float) {
        return bf16_value(((const uint16_t *)memory)[at]);
    }
    float value = ((const float *)memory)[at];
    if (bf16) {
        uint16_t half;
        definitions.bf16_from(&half, &value, 1);
        value = bf16_value(half);
    }
    return value;
}

/* E2 and E3 as a person would write them down: one output at a time. */
static float chain(const struct data *data, bool bf16, size_t i, size_t j, float start) {
    const struct ct_matmul *job = &data->job;
    float c = job->resume ? start : 0.0f;
    for (size_t t = 0; t < (bf16 ? (job->k + 1) / 2 * 2 : job->k); t++) {
        const size_t p = bf16 ? t ^ 1u : t;
        const size_t at_a = job->form == CT_TN ? p * job->lda + i : i * job->lda + p;
        const size_t at_b = job->form == CT_NT ? j * job->ldb + p : p * job->ldb + j;
        float a = 0.0f;
        float b = 0.0f;
        if (p < job->k) {
            a = value_at(data->a, at_a, bf16, job->a_float);
            b = value_at(data->b, at_b, bf16, job->b_float);
        }
        c = fmaf(a, b, c);
    }
    return c + 0.0f;
}

static void run_in_mode(ct_matmul_fn *run, const struct ct_matmul *job) {
    const struct ct_mode mode = ct_mode_enter();
    ct_matmul_alone(run, job);
    ct_mode_leave(mode);
}

typedef void each_case(struct data *data, bool bf16);

static void for_each_case(each_case *check) {
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        for (int variant = 0; variant < 12; variant++) {
            const bool bf16 = variant % 2 != 0;
            const struct ct_matmul kind = {
                .form = (enum ct_form)(variant / 4),
                .resume = variant / 2 % 2 != 0,
                .a_float = draw() % 2 != 0,
                .b_float = draw() % 2 != 0,
            };
            struct data data = make_of(&shapes[s], kind, bf16);
            check(&data, bf16);
            drop(&data);
        }
    }
}

static void expect_chains(struct data *data, bool bf16) {
    const struct ct_matmul *job = &data->job;
    float *expected = room(data->c_bytes);
    memcpy(expected, data->c, data->c_bytes);
    const struct ct_mode mode = ct_mode_enter();
    for (size_t i = 0; i < job->m; i++) {
        for (size_t j = 0; j < job->n; j++) {
            const size_t at = i * job->ldc + j;
            expected[at] = chain(data, bf16, i, j, data->c[at]);
        }
    }
    ct_mode_leave(mode);
    run_in_mode(bf16 ? definitions.matmul_bf16 : definitions.matmul_f32, job);
    assert_memory_equal(data->c, expected, data->c_bytes);
    free(expected);
}

static void definitions_are_the_chains(void **state) {
    (void)state;
    for_each_case(expect_chains);
}

static struct ct_ops overlay;

static void expect_same(struct data *data, bool bf16) {
    float *start = room(data->c_bytes);
    memcpy(start, data->c, data->c_bytes);
    run_in_mode(bf16 ? definitions.matmul_bf16 : definitions.matmul_f32, &data->job);
    struct ct_matmul job = data->job;
    job.c = start;
    run_in_mode(bf16 ? overlay.matmul_bf16 : overlay.matmul_f32, &job);
    assert_memory_equal(start, data->c, data->c_bytes);
    free(start);
}

static void expect_overlay(enum ct_isa isa) {
    if (ct_ops_install(&overlay, isa) != CT_OK) {
        print_message("skipped: %s\n", ct_err_detail());
        skip();
    }
    for_each_case(expect_same);
}

static void avx2_equals_the_definitions(void **state) {
    (void)state;
    expect_overlay(CT_ISA_AVX2);
}

static void avx512_equals_the_definitions(void **state) {
    (void)state;
    expect_overlay(CT_ISA_AVX512);
}

static void avx512bf16_equals_the_definitions(void **state) {
    (void)state;
    expect_overlay(CT_ISA_AVX512BF16);
}

/* An epilogue that takes down what it sees and how often, and leaves a mark in c. */
struct seen {
    float *values;
    uint8_t *times;
    size_t n;
    size_t *next;        /* [n] the row that should come next, were they in order */
    uint8_t *disordered; /* [n] another came */
};

static void see(void *context, float *c, size_t ldc, size_t row, size_t rows, size_t column,
                size_t columns) {
    const struct seen *seen = context;
    for (size_t j = column; j < column + columns; j++) {
        seen->disordered[j] |= row != seen->next[j];
        seen->next[j] = row + rows;
    }
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < columns; j++) {
            const size_t at = (row + i) * seen->n + column + j;
            seen->values[at] = c[i * ldc + j];
            seen->times[at]++;
            c[i * ldc + j] = 0.5f;
        }
    }
}

struct team_run {
    ct_matmul_fn *run;
    const struct ct_matmul *job;
    struct ct_room room;
};

static void run_hand(void *context, struct ct_hand hand) {
    const struct team_run *team = context;
    team->run(team->job, hand, team->room);
}

/* The outputs that `expected` has, dense, were handed over once each, and C has the marks. */
static void expect_seen(const struct data *data, const struct seen *seen, const float *expected) {
    const struct ct_matmul *job = &data->job;
    for (size_t i = 0; i < job->m; i++) {
        for (size_t j = 0; j < job->n; j++) {
            const size_t at = i * job->n + j;
            assert_int_equal(seen->times[at], 1);
            assert_memory_equal(&seen->values[at], &expected[i * job->ldc + j], sizeof(float));
        }
    }
}

/* What OpenBLAS does not promise. */
static void positive_zeros(float *values, size_t n) {
    for (size_t i = 0; i < n; i++) {
        values[i] = values[i] + 0.0f;
    }
}

/* One product by `hands` hands equals the definition's, with an epilogue (or without, 0), seeing C
 * (1) or in place of C (2). */
static void expect_team(const struct shape *shape, const struct ct_matmul *kind, bool bf16,
                        uint32_t hands, size_t room_count, int epilogue) {
    struct data data = make_of(shape, *kind, bf16);
    float *start = aligned_alloc(64, (data.c_bytes + 63) / 64 * 64); /* as matrices of a model */
    assert_non_null(start);
    memcpy(start, data.c, data.c_bytes);
    run_in_mode(bf16 ? definitions.matmul_bf16 : definitions.matmul_f32, &data.job);
    const size_t outputs = shape->m * shape->n;
    struct seen seen = {calloc(outputs, sizeof(float)), calloc(outputs, 1), shape->n,
                        calloc(shape->n, sizeof(size_t)), calloc(shape->n, 1)};
    const struct ct_epilogue see_all = {see, &seen, draw() % 2 != 0};
    struct ct_matmul job = data.job;
    job.c = epilogue == 2 ? NULL : start;
    job.epilogue = epilogue == 0 ? NULL : &see_all;
    struct ct_room shared = {aligned_alloc(64, room_count * sizeof(float)), room_count};
    assert_non_null(shared.floats);
    struct team_run team = {bf16 ? overlay.matmul_bf16 : overlay.matmul_f32, &job, shared};
    ct_team(hands, run_hand, &team);
    if (team.run == ct_matmul_blas) {
        positive_zeros(start, data.c_bytes / sizeof(float));
        positive_zeros(data.c, data.c_bytes / sizeof(float));
        positive_zeros(seen.values, outputs);
    }
    if (epilogue != 0) {
        expect_seen(&data, &seen, data.c);
        for (size_t j = 0; see_all.in_order && j < shape->n; j++) {
            assert_int_equal(seen.disordered[j], 0);
        }
    }
    for (size_t i = 0; epilogue == 1 && i < shape->m; i++) {
        for (size_t j = 0; j < shape->n; j++) {
            data.c[i * job.ldc + j] = 0.5f;
        }
    }
    if (epilogue != 2) {
        assert_memory_equal(start, data.c, data.c_bytes);
    }
    free(shared.floats);
    free(seen.values);
    free(seen.times);
    free(seen.next);
    free(seen.disordered);
    free(start);
    drop(&data);
}

/* Shapes that cross every border: of tiles, panels, blocks and slabs (of the least room 2 tiles of
 * 1024 steps), of hands' shares; fewer outputs than hands, and so many rows that two hands take
 * them alone. */
static const struct shape team_shapes[] = {
    {1, 1, 1, 0},      {130, 70, 33, 3}, {57, 33, 3300, 1}, {15, 100, 1030, 0}, {300, 31, 5, 2},
    {14, 32, 256, 0},  {29, 65, 258, 1}, {3, 200, 511, 0},  {45, 40, 0, 1},     {1100, 16, 130, 0},
    {50, 129, 768, 5}, {1, 70, 1500, 0}, {2500, 33, 21, 1}, {1000, 3, 1100, 2},
};

static void teams_equal_the_definitions(void **state) {
    (void)state;
    for (int isa = CT_ISA_SCALAR; isa <= CT_ISA_AVX512BF16; isa++) {
        if (ct_ops_install(&overlay, (enum ct_isa)isa) != CT_OK) {
            print_message("not here: %s\n", ct_err_detail());
            continue;
        }
        for (size_t s = 0; s < sizeof team_shapes / sizeof team_shapes[0]; s++) {
            for (int variant = 0; variant < 18; variant++) {
                const int epilogue = (int)(draw() % 3);
                const struct ct_matmul kind = {
                    .form = (enum ct_form)(variant / 2 % 3),
                    .resume = epilogue != 2 && draw() % 2 != 0,
                    .a_float = draw() % 2 != 0,
                    .b_float = draw() % 2 != 0,
                };
                const bool small = draw() % 2 != 0 &&
                                   (epilogue != 2 || team_shapes[s].k < CT_MATMUL_ROOM_LEAST / 16);
                expect_team(&team_shapes[s], &kind, variant % 2 != 0, 1 + draw() % 5,
                            small ? CT_MATMUL_ROOM_LEAST : CT_MATMUL_ROOM, epilogue);
            }
        }
    }
}

/* So large that they go past the caches, but for the last panel. */
static void large_outputs_equal_the_definitions(void **state) {
    (void)state;
    const struct shape gradient = {530, 528, 7, 16}, other = {1030, 1040, 7, 16};
    for (int isa = CT_ISA_AVX2; isa <= CT_ISA_AVX512BF16; isa++) {
        if (ct_ops_install(&overlay, (enum ct_isa)isa) != CT_OK) {
            print_message("not here: %s\n", ct_err_detail());
            continue;
        }
        for (int variant = 0; variant < 4; variant++) {
            const bool bf16 = variant % 2 != 0;
            const uint32_t hands = variant < 2 ? 1 : 3;
            const struct ct_matmul weights = {.form = CT_TN},
                                   outputs = {.form = bf16 ? CT_NN : CT_NT};
            expect_team(&gradient, &weights, bf16, hands, CT_MATMUL_ROOM, 0);
            if (bf16 == (hands > 1)) {
                expect_team(&other, &outputs, bf16, hands, CT_MATMUL_ROOM, 0);
            }
        }
    }
}

/* `fast` goes through the same job: floats whatever a_float says, epilogues afterwards. */
static void blas_teams_see_their_outputs(void **state) {
    (void)state;
    overlay.matmul_f32 = ct_matmul_blas;
    const struct shape shape = {70, 130, 1, 0}; /* one product each: exact */
    for (int epilogue = 0; epilogue < 3; epilogue++) {
        for (int form = CT_NN; form <= CT_TN; form++) {
            const struct ct_matmul kind = {.form = (enum ct_form)form, .a_float = true};
            expect_team(&shape, &kind, false, 3, CT_MATMUL_ROOM_LEAST, epilogue);
        }
    }
}

/* From −2, the pair (1·1, 2^-24·1): odd first −2 + 2^-24 rounds to −2, then −1; even first would be
 * −1 + 2^-24, which binary32 holds. */
static void pairs_go_odd_before_even(void **state) {
    (void)state;
    const uint16_t a[2] = {0x3f80, 0x3380}; /* 1, 2^-24 */
    const uint16_t b[2] = {0x3f80, 0x3f80};
    float result = 0.0f;
    struct ct_matmul job = {
        .form = CT_NT, .m = 1, .n = 1, .k = 2, .a = a, .lda = 2, .b = b, .ldb = 2, .ldc = 1};
    job.c = &result;
    job.resume = true;
    for (int isa = CT_ISA_SCALAR; isa <= CT_ISA_AVX512BF16; isa++) {
        struct ct_ops ops;
        if (ct_ops_install(&ops, (enum ct_isa)isa) != CT_OK) {
            print_message("not here: %s\n", ct_err_detail());
            continue;
        }
        result = -2.0f;
        run_in_mode(ops.matmul_bf16, &job);
        uint32_t bits;
        memcpy(&bits, &result, sizeof bits);
        assert_int_equal(bits, 0xbf800000);
    }
}

/* A chain cut at an even place goes on as if it had not been cut, whatever the number of threads.
 */
static void cuts_and_threads_do_not_show(void **state) {
    (void)state;
    const struct shape shape = {150, 170, 90, 2};
    for (int variant = 0; variant < 6; variant++) {
        const bool bf16 = variant % 2 != 0;
        const enum ct_numerics numerics = bf16 ? CT_NUMERICS_BF16_1 : CT_NUMERICS_FP32_1;
        const enum ct_form form = (enum ct_form)(variant / 2);
        struct data data = make(&shape, form, bf16, false);
        float *whole = room(data.c_bytes);
        memcpy(whole, data.c, data.c_bytes);
        struct ct_matmul job = data.job;
        job.c = whole;
        job.threads = 3;
        ct_matmul(numerics, &job);
        struct ct_matmul part = data.job;
        const size_t bytes = ct_operand_bytes(numerics);
        const size_t cut = 38;
        part.threads = 2;
        part.k = cut;
        ct_matmul(numerics, &part);
        part.k = data.job.k - cut;
        part.a = (char *)data.a + (form == CT_TN ? cut * part.lda : cut) * bytes;
        part.b = (char *)data.b + (form == CT_NT ? cut : cut * part.ldb) * bytes;
        part.resume = true;
        ct_matmul(numerics, &part);
        assert_memory_equal(whole, data.c, data.c_bytes);
        free(whole);
        drop(&data);
    }
}

/* Zeroes the elements of op(A) that a causal chain leaves out. */
static void mask_operand(const struct ct_matmul *job, void *a, size_t bytes) {
    for (size_t i = 0; i < job->m; i++) {
        for (size_t p = 0; p < job->k; p++) {
            const ptrdiff_t late = (ptrdiff_t)p - (ptrdiff_t)i - job->diagonal;
            if (job->skip == CT_SKIP_LATE ? late > 0 : late < 0) {
                const size_t at = job->form == CT_TN ? p * job->lda + i : i * job->lda + p;
                memset((char *)a + at * bytes, 0, bytes);
            }
        }
    }
}

static void expect_skip(const struct ct_ops *ops, enum ct_form form, enum ct_skip skip,
                        ptrdiff_t diagonal, bool bf16) {
    const struct shape shape = {90, 90, 540, 1};
    struct data data = make(&shape, form, bf16, false);
    struct ct_matmul job = data.job;
    job.diagonal = diagonal;
    job.skip = skip;
    if (skip != CT_SKIP_UPPER_C) {
        mask_operand(&job, data.a, bf16 ? 2 : 4);
    }
    run_in_mode(bf16 ? definitions.matmul_bf16 : definitions.matmul_f32, &data.job);
    float *skipped = room(data.c_bytes);
    memset(skipped, 0xff, data.c_bytes);
    job.c = skipped;
    run_in_mode(bf16 ? ops->matmul_bf16 : ops->matmul_f32, &job);
    for (ptrdiff_t i = 0; i < (ptrdiff_t)job.m; i++) {
        const ptrdiff_t wanted = skip == CT_SKIP_UPPER_C ? i + 1 + diagonal : (ptrdiff_t)job.n;
        const ptrdiff_t width = wanted > (ptrdiff_t)job.n ? (ptrdiff_t)job.n : wanted;
        if (width > 0) {
            assert_memory_equal(skipped + (size_t)i * job.ldc, data.c + (size_t)i * job.ldc,
                                (size_t)width * sizeof(float));
        }
    }
    free(skipped);
    drop(&data);
}

/* Skipping what is zero, or not wanted, changes no wanted bit, also across blocks of the chain. */
static void skipping_does_not_show(void **state) {
    (void)state;
    static const ptrdiff_t diagonals[] = {0, 37, -60, 300};
    for (int isa = CT_ISA_SCALAR; isa <= CT_ISA_AVX512BF16; isa++) {
        struct ct_ops ops;
        if (ct_ops_install(&ops, (enum ct_isa)isa) != CT_OK) {
            print_message("not here: %s\n", ct_err_detail());
            continue;
        }
        for (size_t d = 0; d < sizeof diagonals / sizeof diagonals[0]; d++) {
            for (int bf16 = 0; bf16 < 2; bf16++) {
                expect_skip(&ops, CT_NT, CT_SKIP_UPPER_C, diagonals[d], bf16 != 0);
                expect_skip(&ops, CT_NN, CT_SKIP_LATE, diagonals[d], bf16 != 0);
                expect_skip(&ops, CT_TN, CT_SKIP_EARLY, diagonals[d], bf16 != 0);
            }
        }
    }
}

/* `fast` computes the same products, near enough. */
static void blas_is_close(void **state) {
    (void)state;
    for (int form = CT_NN; form <= CT_TN; form++) {
        const struct shape shape = {33, 33, 67, 0};
        struct data data = make(&shape, (enum ct_form)form, false, true);
        for (size_t i = 0; i < 33 * 67; i++) {
            ((float *)data.a)[i] = (float)(int32_t)draw() * 0x1p-31f;
            ((float *)data.b)[i] = (float)(int32_t)draw() * 0x1p-31f;
        }
        memset(data.c, 0, data.c_bytes);
        struct ct_matmul job = data.job;
        job.threads = 2;
        ct_matmul(CT_NUMERICS_FAST, &job);
        float *exact = room(data.c_bytes);
        memset(exact, 0, data.c_bytes);
        job.c = exact;
        ct_matmul(CT_NUMERICS_FP32_1, &job);
        for (size_t i = 0; i < data.c_bytes / sizeof(float); i++) {
            /* 67 terms below 1 in magnitude, each rounded: far below 1e-4. */
            assert_true(fabsf(exact[i] - data.c[i]) < 1e-4f);
        }
        free(exact);
        drop(&data);
    }
}

int main(void) {
    if (ct_isa_start() != CT_OK || ct_ops_install(&definitions, CT_ISA_SCALAR) != CT_OK) {
        print_error("%s\n", ct_err_detail());
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(definitions_are_the_chains),
        cmocka_unit_test(avx2_equals_the_definitions),
        cmocka_unit_test(avx512_equals_the_definitions),
        cmocka_unit_test(avx512bf16_equals_the_definitions),
        cmocka_unit_test(teams_equal_the_definitions),
        cmocka_unit_test(large_outputs_equal_the_definitions),
        cmocka_unit_test(blas_teams_see_their_outputs),
        cmocka_unit_test(pairs_go_odd_before_even),
        cmocka_unit_test(cuts_and_threads_do_not_show),
        cmocka_unit_test(skipping_does_not_show),
        cmocka_unit_test(blas_is_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
