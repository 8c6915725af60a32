/* Every finish of every overlay against the row operations it is written to be, whole arrays to the
 * byte: blocks of one panel and of any other width, at any place, aligned to lines and not. */
#include "kernels/ops.h"

#include <cotrain/mode.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 23, STRIDE = 160, VALUES = ROWS * STRIDE, COLUMNS_MAX = 64 };

/* What a finish reads and writes. The arrays begin at lines; an operand array of bf16 fills half.
 */
struct arrays {
    _Alignas(64) float out[VALUES], out_2[VALUES], out_3[VALUES];
    _Alignas(64) float in[VALUES], in_2[VALUES];
    _Alignas(64) float c[ROWS * COLUMNS_MAX];
    _Alignas(64) float bias[STRIDE], sums[STRIDE];
};

/* rows × columns from (row, column) on; c has rows of `columns`. */
struct block {
    size_t row, rows, column, columns;
    bool bf16, biased;
};

static struct ct_ops definitions, overlay;

static void *operand(const struct block *block, void *array, size_t at) {
    return (char *)array + at * (block->bf16 ? sizeof(uint16_t) : sizeof(float));
}

static enum ct_numerics numerics(const struct block *block) {
    return block->bf16 ? CT_NUMERICS_BF16_1 : CT_NUMERICS_FP32_1;
}

/* Rounded by the definitions, whatever ct_ops is. */
static void put(const struct block *block, void *array, size_t at, const float *x) {
    if (block->bf16) {
        definitions.bf16_from(operand(block, array, at), x, block->columns);
    } else {
        memcpy(operand(block, array, at), x, block->columns * sizeof *x);
    }
}

static void get(const struct block *block, float *x, void *array, size_t at) {
    if (block->bf16) {
        definitions.bf16_to(x, operand(block, array, at), block->columns);
    } else {
        memcpy(x, operand(block, array, at), block->columns * sizeof *x);
    }
}

/* One row of each, at element `at` of the arrays; c is the chains' ends. */
static void bias(const struct block *block, struct arrays *a, size_t at, const float *c) {
    float x[COLUMNS_MAX];
    memcpy(x, c, block->columns * sizeof *x);
    if (block->biased) {
        definitions.add(x, c, a->bias + block->column, block->columns);
    }
    put(block, a->out, at, x);
}

static void residual(const struct block *block, struct arrays *a, size_t at, const float *c) {
    float x[COLUMNS_MAX];
    memcpy(x, c, block->columns * sizeof *x);
    if (block->biased) {
        definitions.add(x, c, a->bias + block->column, block->columns);
    }
    definitions.add(a->out + at, a->in + at, x, block->columns);
}

static void gelu(const struct block *block, struct arrays *a, size_t at, const float *c) {
    float x[COLUMNS_MAX], y[COLUMNS_MAX];
    memcpy(x, c, block->columns * sizeof *x);
    if (block->biased) {
        definitions.add(x, c, a->bias + block->column, block->columns);
    }
    definitions.gelu(y, x, block->columns);
    put(block, a->out, at, x);
    put(block, a->out_2, at, y);
}

static void gelu_backward(const struct block *block, struct arrays *a, size_t at, const float *c) {
    float x[COLUMNS_MAX], dx[COLUMNS_MAX];
    get(block, x, a->in, at);
    definitions.gelu_backward(dx, c, x, block->columns);
    definitions.column_sums(a->sums + block->column, dx, 1, block->columns, block->columns);
    put(block, a->out, at, dx);
}

static void swiglu(const struct block *block, struct arrays *a, size_t at, const float *c) {
    float y[COLUMNS_MAX];
    definitions.swiglu(y, a->in + at, c, block->columns);
    put(block, a->out, at, a->in + at);
    put(block, a->out_2, at, c);
    put(block, a->out_3, at, y);
}

static void swiglu_backward(const struct block *block, struct arrays *a, size_t at,
                            const float *c) {
    float gate[COLUMNS_MAX], up[COLUMNS_MAX], dgate[COLUMNS_MAX], dup[COLUMNS_MAX];
    get(block, gate, a->in, at);
    get(block, up, a->in_2, at);
    definitions.swiglu_backward(dgate, dup, c, gate, up, block->columns);
    put(block, a->out, at, dgate);
    put(block, a->out_2, at, dup);
}

#define FINISH(name)                                                                               \
    { #name, name, offsetof(struct ct_finishes, name) }
static const struct finish {
    const char *name;
    void (*row)(const struct block *block, struct arrays *a, size_t at, const float *c);
    size_t place;
} finishes[] = {FINISH(bias),          FINISH(residual), FINISH(gelu),
                FINISH(gelu_backward), FINISH(swiglu),   FINISH(swiglu_backward)};
enum { FINISHES = sizeof finishes / sizeof finishes[0] };

static ct_finish_fn *function(const struct ct_ops *ops, const struct finish *finish) {
    ct_finish_fn *run;
    memcpy(&run, (const char *)&ops->finish + finish->place, sizeof run);
    return run;
}

static uint32_t random_state = 1;

static uint32_t draw(void) {
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

/* Between −8 and 8, some tiny, some zeros of either sign. */
static void fill(float *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const float sign = draw() % 2 != 0 ? -1.0f : 1.0f, size = (float)draw() * 0x1p-21f;
        const uint32_t kind = draw() % 16;
        values[i] = sign * (kind == 0 ? 0.0f : kind == 1 ? size * 0x1p-100f : size);
    }
}

static void fill_operands(const struct block *block, float *array) {
    float values[VALUES];
    fill(values, VALUES);
    struct block whole = *block;
    whole.columns = VALUES;
    put(&whole, array, 0, values);
}

static void fill_all(const struct finish *finish, const struct block *block, struct arrays *a) {
    memset(a, 0x5a, sizeof *a);
    fill(a->c, sizeof a->c / sizeof a->c[0]);
    fill(a->bias, STRIDE);
    fill(a->sums, STRIDE);
    if (finish->row == residual || finish->row == swiglu) {
        fill(a->in, VALUES);
    } else {
        fill_operands(block, a->in);
        fill_operands(block, a->in_2);
    }
}

static void expect_block(enum ct_isa isa, const struct finish *finish, const struct block *block) {
    static struct arrays expected, got;
    fill_all(finish, block, &expected);
    memcpy(&got, &expected, sizeof got);
    struct ct_finish context = {
        .out = got.out,
        .out_2 = got.out_2,
        .out_3 = got.out_3,
        .in = got.in,
        .in_2 = got.in_2,
        .bias = block->biased ? got.bias : NULL,
        .sums = got.sums,
        .stride = STRIDE,
        .bf16 = block->bf16,
    };
    const struct ct_mode mode = ct_mode_enter();
    function(&overlay, finish)(&context, got.c, block->columns, block->row, block->rows,
                               block->column, block->columns);
    for (size_t i = 0; i < block->rows; i++) {
        finish->row(block, &expected, (block->row + i) * STRIDE + block->column,
                    expected.c + i * block->columns);
    }
    ct_mode_leave(mode);
    if (memcmp(&expected, &got, sizeof got) != 0) {
        fail_msg("%s differs in %s, %s, %zu x %zu at %zu, %zu", ct_isa_name(isa), finish->name,
                 ct_numerics_name(numerics(block)), block->rows, block->columns, block->row,
                 block->column);
    }
}

static void finishes_are_their_row_operations(void **state) {
    (void)state;
    static const size_t columns[] = {1, 15, 16, 17, 31, 32, 33, 48, 63, 64};
    static const size_t places[] = {0, 32, 16, 5};
    assert_int_equal(ct_ops_install(&definitions, CT_ISA_SCALAR), CT_OK);
    for (int isa = CT_ISA_SCALAR; isa <= CT_ISA_NEON; isa++) {
        if (ct_ops_install(&overlay, (enum ct_isa)isa) != CT_OK) {
            print_message("not here: %s\n", ct_err_detail());
            continue;
        }
        for (size_t number = 0; number < FINISHES * 10 * 4 * 4; number++) {
            const struct block block = {
                .row = draw() % 3,
                .rows = 1 + draw() % (ROWS - 3),
                .column = places[number / 10 % 4],
                .columns = columns[number % 10],
                .bf16 = number / 40 % 2 != 0,
                .biased = number / 80 % 2 != 0,
            };
            expect_block((enum ct_isa)isa, &finishes[number / 160], &block);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(finishes_are_their_row_operations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
