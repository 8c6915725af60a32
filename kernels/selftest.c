#include "selftest.h"

#include "functions.h"
#include "matmul.h"

#include <cotrain/mode.h>

/* Each vector is repeated over this many elements, so that wide paths and tails both meet it. */
enum { REPEAT = 35, ROW = 77 };

struct vector {
    const char *name;
    uint32_t x, y, z; /* bit patterns */
    uint32_t expected;
};

/* x·y + z as one chain step. 2^25 − 1 = 18631·1801. */
static const struct vector fma_vectors[] = {
    {"fma: one rounding", 0x3f800001, 0x3f800001, 0xbf800002, 0x28800000},
    {"fma: 2^-126·(1 − 2^-25) rounds to 2^-126", 0x20918e00, 0x1f612000, 0, 0x00800000},
    {"fma: product below 2^-126 flushes", 0x1fffffff, 0x20000000, 0, 0},
    {"fma: tie rounds to 2^-126 and stays", 0x8d800000, 0x26000000, 0x00800000, 0x00800000},
    {"fma: 2^-126·(1 − 2^-24) flushes", 0x8d800000, 0x26800000, 0x00800000, 0},
    {"fma: rounds to 2^-126·(1 − 2^-24), flushes", 0x8d800000, 0x26400000, 0x00800000, 0},
    {"fma: subnormal factor is zero", 0x007fffff, 0x7f000000, 0x3f800000, 0x3f800000},
    {"fma: subnormal addend is zero", 0x3f800000, 0x01000000, 0x007fffff, 0x01000000},
    {"chain: ends in +0", 0x80000000, 0x3f800000, 0x80000000, 0},
};

static const struct vector scale_vectors[] = {
    {"mul: 2^-126·(1 − 2^-24) flushes", 0x1fffffff, 0x20000000, 0, 0},
    {"mul: to zero of the same sign", 0x9fffffff, 0x20000000, 0, 0x80000000},
    {"mul: 2^-126·(1 − 2^-25) rounds to 2^-126", 0x20918e00, 0x1f612000, 0, 0x00800000},
    {"mul: subnormal input is zero", 0x007fffff, 0x4b000000, 0, 0},
    {"mul: negative subnormal is −0", 0x807fffff, 0x3f800000, 0, 0x80000000},
    {"mul: smallest normal stays", 0x00800000, 0x3f800000, 0, 0x00800000},
};

static const struct vector divide_vectors[] = {
    {"div: one third", 0x3f800000, 0x40400000, 0, 0x3eaaaaab},
    {"div: 2^-126·(1 − 2^-24) flushes", 0x0d7fffff, 0x4c800000, 0, 0},
    {"div: 2^-126 stays", 0x0d800000, 0x4c800000, 0, 0x00800000},
    {"div: to −0", 0x8d7fffff, 0x4c800000, 0, 0x80000000},
    {"div: subnormal dividend is zero", 0x007fffff, 0x00800000, 0, 0},
};

static const struct vector add_vectors[] = {
    {"add: 2^-149 flushes", 0x00800001, 0x80800000, 0, 0},
    {"add: 2^-126·(1 − 2^-23) flushes to −0", 0x81000000, 0x00800001, 0, 0x80000000},
    {"add: 2^-126 stays", 0x01000000, 0x80800000, 0, 0x00800000},
    {"add: subnormals are zeros", 0x007fffff, 0x00400000, 0, 0},
};

/* Binary64 to binary32; the patterns of doubles. */
static const struct narrow_vector {
    const char *name;
    uint64_t x;
    uint32_t expected;
} narrow_vectors[] = {
    {"narrow: 2^-126·(1 − 2^-25) rounds to 2^-126", 0x380ffffff0000000u, 0x00800000},
    {"narrow: just below it flushes", 0x380fffffefffffffu, 0},
    {"narrow: 2^-126·(1 − 2^-26), negative, stays", 0xb80ffffff8000000u, 0x80800000},
    {"narrow: 2^-126·(1 − 2^-24) flushes to −0", 0xb80fffffe0000000u, 0x80000000},
    {"narrow: tie to even", 0x3ff0000030000000u, 0x3f800002},
};

/* x to bf16. */
static const struct vector bf16_vectors[] = {
    {"bf16: tie to even, down", 0x3f808000, 0, 0, 0x3f80},
    {"bf16: tie to even, up", 0x3f818000, 0, 0, 0x3f82},
    {"bf16: above the tie", 0x3f808001, 0, 0, 0x3f81},
    {"bf16: carry into the exponent", 0x3fffffff, 0, 0, 0x4000},
    {"bf16: largest subnormal is zero", 0x007fffff, 0, 0, 0},
    {"bf16: negative subnormal is −0", 0x807fffff, 0, 0, 0x8000},
    {"bf16: −0", 0x80000000, 0, 0, 0x8000},
    {"bf16: smallest normal", 0x00800000, 0, 0, 0x0080},
    {"bf16: overflow to infinity", 0x7f7fffff, 0, 0, 0x7f80},
};

/* c = z, then the pair (even: x, odd: y, both halves: a low, b high) under E3. */
static const struct vector pair_vectors[] = {
    {"pair: odd before even", 0x3f803f80, 0x3f803380, 0xc0000000, 0xbf800000},
    {"pair: flushes after the odd step", 0x3f800080, 0x80803f00, 0x00800000, 0x00800000},
    {"pair: ends in +0", 0x80003f80, 0x80003f80, 0x80000000, 0},
};

static const char *check_fma(const struct ct_ops *ops) {
    for (size_t v = 0; v < sizeof fma_vectors / sizeof fma_vectors[0]; v++) {
        const struct vector *vector = &fma_vectors[v];
        const float x = ct_float32(vector->x);
        float y[REPEAT];
        float z[REPEAT];
        for (int i = 0; i < REPEAT; i++) {
            y[i] = ct_float32(vector->y);
            z[i] = ct_float32(vector->z);
        }
        ct_matmul_alone(ops->matmul_f32, &(struct ct_matmul){.form = CT_NN,
                                                             .m = 1,
                                                             .n = REPEAT,
                                                             .k = 1,
                                                             .a = &x,
                                                             .lda = 1,
                                                             .b = y,
                                                             .ldb = REPEAT,
                                                             .c = z,
                                                             .ldc = REPEAT,
                                                             .resume = true});
        for (int i = 0; i < REPEAT; i++) {
            if (ct_bits32(z[i]) != vector->expected) {
                return vector->name;
            }
        }
    }
    return NULL;
}

static const char *check_pairs(const struct ct_ops *ops) {
    for (size_t v = 0; v < sizeof pair_vectors / sizeof pair_vectors[0]; v++) {
        const struct vector *vector = &pair_vectors[v];
        const uint16_t a[2] = {(uint16_t)vector->x, (uint16_t)vector->y};
        uint16_t b[2 * REPEAT];
        float c[REPEAT];
        for (int i = 0; i < REPEAT; i++) {
            b[2 * i] = (uint16_t)(vector->x >> 16);
            b[2 * i + 1] = (uint16_t)(vector->y >> 16);
            c[i] = ct_float32(vector->z);
        }
        ct_matmul_alone(ops->matmul_bf16, &(struct ct_matmul){.form = CT_NT,
                                                              .m = 1,
                                                              .n = REPEAT,
                                                              .k = 2,
                                                              .a = a,
                                                              .lda = 2,
                                                              .b = b,
                                                              .ldb = 2,
                                                              .c = c,
                                                              .ldc = REPEAT,
                                                              .resume = true});
        for (int i = 0; i < REPEAT; i++) {
            if (ct_bits32(c[i]) != vector->expected) {
                return vector->name;
            }
        }
    }
    return NULL;
}

/* Every vector over a whole array, in place. */
static const char *check_elements(const struct ct_ops *ops, const struct vector *vectors,
                                  size_t count,
                                  void (*run)(const struct ct_ops *ops, float *x, float y)) {
    for (size_t v = 0; v < count; v++) {
        float x[REPEAT];
        for (int i = 0; i < REPEAT; i++) {
            x[i] = ct_float32(vectors[v].x);
        }
        run(ops, x, ct_float32(vectors[v].y));
        for (int i = 0; i < REPEAT; i++) {
            if (ct_bits32(x[i]) != vectors[v].expected) {
                return vectors[v].name;
            }
        }
    }
    return NULL;
}

static void run_scale(const struct ct_ops *ops, float *x, float y) {
    ops->scale(x, x, y, REPEAT);
}

static void run_divide(const struct ct_ops *ops, float *x, float y) {
    ops->divide(x, x, y, REPEAT);
}

static void run_add(const struct ct_ops *ops, float *x, float y) {
    float other[REPEAT];
    for (int i = 0; i < REPEAT; i++) {
        other[i] = y;
    }
    ops->add(x, x, other, REPEAT);
}

static const char *check_narrow(void) {
    for (size_t v = 0; v < sizeof narrow_vectors / sizeof narrow_vectors[0]; v++) {
        volatile double x; /* not at compile time */
        double value;
        memcpy(&value, &narrow_vectors[v].x, sizeof value);
        x = value;
        if (ct_bits32(ct_narrow(x)) != narrow_vectors[v].expected) {
            return narrow_vectors[v].name;
        }
    }
    return NULL;
}

static const char *check_bf16(const struct ct_ops *ops) {
    for (size_t v = 0; v < sizeof bf16_vectors / sizeof bf16_vectors[0]; v++) {
        float x[REPEAT];
        uint16_t half[REPEAT];
        for (int i = 0; i < REPEAT; i++) {
            x[i] = ct_float32(bf16_vectors[v].x);
        }
        ops->bf16_from(half, x, REPEAT);
        for (int i = 0; i < REPEAT; i++) {
            if (half[i] != bf16_vectors[v].expected) {
                return bf16_vectors[v].name;
            }
        }
    }
    return NULL;
}

/* A row of ±1: mean 0, variance 1, rstd = 1/√(1 + 3) = ½ with ε = 3; and √2 with ε = 1. */
static const char *check_root(const struct ct_ops *ops) {
    float x[16];
    float gain[16];
    float bias[16] = {0};
    for (int i = 0; i < 16; i++) {
        x[i] = i % 2 == 0 ? 1.0f : -1.0f;
        gain[i] = 1.0f;
    }
    float out[16];
    float mean;
    float rstd;
    ops->layernorm(out, &mean, &rstd, x, gain, bias, 3.0f, 16);
    if (ct_bits32(rstd) != 0x3f000000 || ct_bits32(mean) != 0 || out[1] != -0.5f) {
        return "√: 1/√4";
    }
    ops->layernorm(out, &mean, &rstd, x, gain, bias, 1.0f, 16);
    if (ct_bits32(rstd) != 0x3f3504f3) {
        return "√: 1/√2";
    }
    /* θ = 2 − m/√v, nothing else moving. */
    const struct ct_adamw_factors plain = {1.0f, 1.0f, 0.0f,  0.0f, 1.0f, 1.0f,
                                           0.0f, 0.0f, -1.0f, 0.0f, false};
    float theta = 2.0f, m = 0x1p-63f, v = 0x1p-126f;
    const float g = 0.0f;
    ops->adamw(&plain, &theta, &m, &v, &g, 1);
    return theta == 1.0f ? NULL : "√: of 2^-126";
}

/* A few whole operations against the definitions. */
static const char *check_same(const struct ct_ops *ops, const struct ct_ops *definitions) {
    float x[ROW];
    uint16_t half[ROW];
    for (int i = 0; i < ROW; i++) {
        x[i] = ct_mul((float)((i * 37) % 101 - 50), 0x1.6a09e6p-4f);
    }
    definitions->bf16_from(half, x, ROW);
    struct ct_matmul job = {.form = CT_TN, .m = 11, .n = 7, .k = 7, .lda = 11, .ldb = 11};
    float c[2][ROW];
    job.ldc = 7;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        job.a = job.b = bf16 != 0 ? (const void *)half : x;
        job.c = c[0];
        ct_matmul_alone(bf16 != 0 ? ops->matmul_bf16 : ops->matmul_f32, &job);
        job.c = c[1];
        ct_matmul_alone(bf16 != 0 ? definitions->matmul_bf16 : definitions->matmul_f32, &job);
        if (memcmp(c[0], c[1], sizeof c[0]) != 0) {
            return bf16 != 0 ? "bf16 matmul differs from its definition"
                             : "fp32 matmul differs from its definition";
        }
    }
    ops->gelu(c[0], x, ROW);
    definitions->gelu(c[1], x, ROW);
    if (memcmp(c[0], c[1], sizeof c[0]) != 0) {
        return "GELU differs from its definition";
    }
    const float total = ops->attention_softmax(c[0], x, 0.5f, ROW);
    const float expected = definitions->attention_softmax(c[1], x, 0.5f, ROW);
    if (memcmp(c[0], c[1], sizeof c[0]) != 0 || ct_bits32(total) != ct_bits32(expected)) {
        return "softmax differs from its definition";
    }
    return NULL;
}

const char *ct_selftest(const struct ct_ops *ops, const struct ct_ops *definitions) {
    const struct ct_mode mode = ct_mode_enter();
    const char *failed = check_fma(ops);
    failed = failed != NULL ? failed : check_pairs(ops);
#define ELEMENTS(name)                                                                             \
    check_elements(ops, name##_vectors, sizeof name##_vectors / sizeof name##_vectors[0],          \
                   run_##name)
    failed = failed != NULL ? failed : ELEMENTS(scale);
    failed = failed != NULL ? failed : ELEMENTS(divide);
    failed = failed != NULL ? failed : ELEMENTS(add);
    failed = failed != NULL ? failed : check_narrow();
    failed = failed != NULL ? failed : check_bf16(ops);
    failed = failed != NULL ? failed : check_root(ops);
    if (failed == NULL && definitions != NULL) {
        failed = check_same(ops, definitions);
    }
    ct_mode_leave(mode);
    return failed;
}
