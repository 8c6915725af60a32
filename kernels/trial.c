#include <cotrain/trial.h>

#include <cotrain/pages.h>

#include "block.h"
#include "matmul.h"
#include "parallel.h"

#include <stdlib.h>
#include <string.h>

struct ct_trial {
    struct ct_trial_options options;
    const struct row_op *row_op;
    struct ct_matmul job;
    struct ct_room room;
    float *a, *b, *c;
    uint16_t *a_bf16, *b_bf16; /* of a matmul under bf16-1; else a_bf16 is a row operation's */
    float *gain, *bias, *mean, *rstd;

    /* Of attention: an engine for its scratch, one layer and few tokens in its vocabulary. */
    bool backward;
    struct ct_layout layout;
    struct ct_engine *engine;
    struct ct_micro micro;
    const void *qkv;
};

/* What one row operation does with rows [begin, end), and the bytes it moves a value. */
struct row_op {
    const char *name;
    double bytes;
    void (*rows)(const struct ct_trial *trial, size_t begin, size_t end);
};

static void layernorm(const struct ct_trial *t, size_t begin, size_t end) {
    const size_t n = t->options.n;
    for (size_t i = begin; i < end; i++) {
        ct_ops.layernorm(t->c + i * n, &t->mean[i], &t->rstd[i], t->a + i * n, t->gain, t->bias,
                         1e-5f, n);
    }
}

static void layernorm_backward(const struct ct_trial *t, size_t begin, size_t end) {
    const size_t n = t->options.n;
    for (size_t i = begin; i < end; i++) {
        ct_ops.layernorm_backward(t->c + i * n, t->b + i * n, t->a + i * n, 0.0f, 1.0f, t->gain, n);
    }
}

static void gelu(const struct ct_trial *t, size_t begin, size_t end) {
    const size_t n = t->options.n;
    ct_ops.gelu(t->c + begin * n, t->a + begin * n, (end - begin) * n);
}

static void gelu_backward(const struct ct_trial *t, size_t begin, size_t end) {
    const size_t n = t->options.n;
    ct_ops.gelu_backward(t->c + begin * n, t->b + begin * n, t->a + begin * n, (end - begin) * n);
}

static void attention_softmax(const struct ct_trial *t, size_t begin, size_t end) {
    const size_t n = t->options.n;
    for (size_t i = begin; i < end; i++) {
        t->mean[i] = ct_ops.attention_softmax(t->c + i * n, t->a + i * n, 0.125f, n);
    }
}

static void cross_entropy(const struct ct_trial *t, size_t begin, size_t end) {
    const size_t n = t->options.n;
    for (size_t i = begin; i < end; i++) {
        t->mean[i] = ct_ops.cross_entropy(t->c + i * n, t->a + i * n, (uint32_t)(i % n),
                                          1.0f / (float)t->options.m, n);
    }
}

static void to_bf16(const struct ct_trial *t, size_t begin, size_t end) {
    const size_t n = t->options.n;
    ct_ops.bf16_from(t->a_bf16 + begin * n, t->a + begin * n, (end - begin) * n);
}

static void from_bf16(const struct ct_trial *t, size_t begin, size_t end) {
    const size_t n = t->options.n;
    ct_ops.bf16_to(t->c + begin * n, t->a_bf16 + begin * n, (end - begin) * n);
}

static const struct row_op row_ops[] = {
    {"layernorm", 8.0, layernorm},
    {"layernorm_backward", 16.0, layernorm_backward},
    {"gelu", 8.0, gelu},
    {"gelu_backward", 12.0, gelu_backward},
    {"attention_softmax", 8.0, attention_softmax},
    {"cross_entropy", 8.0, cross_entropy},
    {"to_bf16", 6.0, to_bf16},
    {"from_bf16", 6.0, from_bf16},
};
enum { ROW_OPS = sizeof row_ops / sizeof row_ops[0] };

const char *ct_trial_row_op(size_t number) {
    return number < ROW_OPS ? row_ops[number].name : NULL;
}

/* On pages as those of a model. Values between −1 and 1 that are neither tiny nor in step with any
 * blocking. */
static float *noise(size_t count, uint32_t seed) {
    float *values = ct_pages_reserve(count * sizeof *values);
    for (size_t i = 0; values != NULL && i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        values[i] = (float)((int32_t)(seed >> 8) - (1 << 23)) * 0x1p-23f + 0x1p-25f;
    }
    return values;
}

static uint16_t *rounded(const float *values, size_t count) {
    uint16_t *out = ct_pages_reserve(count * sizeof *out);
    if (out != NULL && values != NULL) {
        ct_ops.bf16_from(out, values, count);
    }
    return out;
}

static enum ct_err open_matmul(struct ct_trial *t) {
    const struct ct_trial_options *o = &t->options;
    static const struct {
        const char *name;
        enum ct_form form;
    } forms[] = {{"NT", CT_NT}, {"NN", CT_NN}, {"TN", CT_TN}};
    size_t i = 0;
    while (i < 3 && strcmp(forms[i].name, o->form) != 0) {
        i++;
    }
    if (i == 3) {
        return ct_fail(CT_ERR_CONFIG, "a product is NT, NN or TN, not '%.8s'", o->form);
    }
    const bool bf16 = o->numerics == CT_NUMERICS_BF16_1;
    t->a = noise(o->m * o->k, 1);
    t->b = noise(o->k * o->n, 2);
    t->c = noise(o->m * o->n, 3);
    t->room = (struct ct_room){ct_pages_reserve(CT_MATMUL_ROOM * sizeof(float)), CT_MATMUL_ROOM};
    if (bf16) {
        t->a_bf16 = rounded(t->a, o->m * o->k);
        t->b_bf16 = rounded(t->b, o->k * o->n);
    }
    if (t->a == NULL || t->b == NULL || t->c == NULL || t->room.floats == NULL ||
        (bf16 && (t->a_bf16 == NULL || t->b_bf16 == NULL))) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a product of %zu, %zu, %zu", o->m, o->n, o->k);
    }
    const enum ct_form form = forms[i].form;
    t->job = (struct ct_matmul){
        .form = form,
        .m = o->m,
        .n = o->n,
        .k = o->k,
        .a = bf16 ? (const void *)t->a_bf16 : t->a,
        .lda = form == CT_TN ? o->m : o->k,
        .b = bf16 ? (const void *)t->b_bf16 : t->b,
        .ldb = form == CT_NT ? o->k : o->n,
        .c = t->c,
        .ldc = o->n,
        .threads = o->threads,
    };
    return CT_OK;
}

static enum ct_err open_rows(struct ct_trial *t) {
    const size_t m = t->options.m, n = t->options.n;
    for (size_t i = 0; i < ROW_OPS; i++) {
        if (strcmp(row_ops[i].name, t->options.op) == 0) {
            t->row_op = &row_ops[i];
        }
    }
    if (t->row_op == NULL) {
        return ct_fail(CT_ERR_CONFIG, "'%.32s' is no operation by rows", t->options.op);
    }
    t->a = noise(m * n, 1);
    t->b = noise(m * n, 2);
    t->c = noise(m * n, 3);
    t->a_bf16 = rounded(t->a, m * n);
    t->gain = noise(n, 4);
    t->bias = noise(n, 5);
    t->mean = noise(m, 6);
    t->rstd = noise(m, 7);
    if (t->a == NULL || t->b == NULL || t->c == NULL || t->a_bf16 == NULL || t->gain == NULL ||
        t->bias == NULL || t->mean == NULL || t->rstd == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for %zu rows of %zu", m, n);
    }
    return CT_OK;
}

/* k tokens a sequence, heads of 64 where the width allows. */
static enum ct_err open_attention(struct ct_trial *t) {
    const struct ct_trial_options *o = &t->options;
    if (o->k == 0 || o->m % o->k != 0) {
        return ct_fail(CT_ERR_CONFIG, "%zu tokens are not sequences of %zu", o->m, o->k);
    }
    const struct ct_model_shape shape = {.arch = CT_ARCH_GPT2,
                                         .vocab = 2,
                                         .context = (uint32_t)o->k,
                                         .layers = 1,
                                         .heads = o->n % 64 == 0 ? (uint32_t)(o->n / 64) : 1,
                                         .width = (uint32_t)o->n};
    const uint32_t sequences = (uint32_t)(o->m / o->k);
    const struct ct_engine_options options = {
        .numerics = o->numerics, .batch = sequences, .leaves = 1, .threads = o->threads};
    CT_TRY(ct_layout_init(&t->layout, &shape));
    CT_TRY(ct_engine_open(&t->layout, &options, &t->engine));
    t->backward = strcmp(o->op, "attention_backward") == 0;
    t->micro = (struct ct_micro){
        .length = o->k, .sequences = sequences, .rows = o->m, .first = true, .last = true};
    t->a = noise(3 * o->m * o->n, 1);
    t->b = noise(o->m * o->n, 2);
    t->c = noise(3 * o->m * o->n, 3);
    t->qkv = t->a;
    if (o->numerics == CT_NUMERICS_BF16_1) {
        t->a_bf16 = rounded(t->a, 3 * o->m * o->n);
        t->qkv = t->a_bf16;
    }
    if (t->a == NULL || t->b == NULL || t->c == NULL || t->qkv == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for attention over %zu tokens", o->m);
    }
    return CT_OK;
}

static enum ct_err open_any(struct ct_trial *trial) {
    const char *op = trial->options.op;
    if (strcmp(op, "matmul") == 0) {
        return open_matmul(trial);
    }
    if (strcmp(op, "attention_forward") == 0 || strcmp(op, "attention_backward") == 0) {
        return open_attention(trial);
    }
    return open_rows(trial);
}

enum ct_err ct_trial_open(const struct ct_trial_options *options, struct ct_trial **out) {
    struct ct_trial *trial = calloc(1, sizeof *trial);
    if (trial == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a trial");
    }
    trial->options = *options;
    const enum ct_err err = open_any(trial);
    if (err != CT_OK) {
        ct_trial_close(trial);
        return err;
    }
    *out = trial;
    return CT_OK;
}

void ct_trial_close(struct ct_trial *trial) {
    if (trial == NULL) {
        return;
    }
    void *const owned[] = {trial->a,      trial->b,          trial->c,    trial->a_bf16,
                           trial->b_bf16, trial->gain,       trial->bias, trial->mean,
                           trial->rstd,   trial->room.floats};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++) {
        free(owned[i]);
    }
    ct_engine_close(trial->engine);
    ct_layout_deinit(&trial->layout);
    free(trial);
}

static void product_body(void *context, struct ct_hand hand) {
    const struct ct_trial *trial = context;
    ct_matmul_team(trial->options.numerics, &trial->job, hand, trial->room);
}

static void attention_body(void *context, struct ct_hand hand) {
    const struct ct_trial *trial = context;
    if (trial->backward) {
        ct_attention_backward(trial->engine, &trial->micro, trial->qkv, trial->b, trial->c, hand);
    } else {
        ct_attention_forward(trial->engine, &trial->micro, trial->qkv, trial->c, hand);
    }
}

static void rows_body(void *context, size_t begin, size_t end) {
    const struct ct_trial *trial = context;
    trial->row_op->rows(trial, begin, end);
}

void ct_trial_run(struct ct_trial *trial) {
    if (trial->row_op != NULL) {
        ct_parallel(trial->options.threads, trial->options.m, 1, rows_body, trial);
    } else if (trial->engine != NULL) {
        ct_team(trial->options.threads, attention_body, trial);
    } else if (trial->options.numerics == CT_NUMERICS_FAST) {
        ct_blas_product(&trial->job);
    } else {
        ct_team(trial->options.threads, product_body, trial);
    }
}

double ct_trial_operations(const struct ct_trial *trial) {
    const struct ct_trial_options *o = &trial->options;
    const double m = (double)o->m, n = (double)o->n, k = (double)o->k;
    if (trial->row_op != NULL) {
        return 0.0;
    }
    if (trial->engine != NULL) {
        /* Of each product the lower triangle: scores and values; backward scores, dP, dV, dQ, dK.
         */
        return (trial->backward ? 5.0 : 2.0) * m * n * (k + 1.0);
    }
    return 2.0 * m * n * k;
}

double ct_trial_bytes(const struct ct_trial *trial) {
    return trial->row_op == NULL
               ? 0.0
               : trial->row_op->bytes * (double)trial->options.m * (double)trial->options.n;
}
