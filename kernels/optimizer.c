#include <cotrain/optimizer.h>

#include <cotrain/assert.h>
#include <cotrain/mode.h>
#include <cotrain/pages.h>

#include "binary64.h"
#include "flush.h"
#include "ops.h"
#include "parallel.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK = 4096, WAVE_BLOCKS = 1024 };

struct ct_adamw ct_adamw_default(void) {
    return (struct ct_adamw){
        .beta1 = 0.9f,
        .beta2 = 0.95f,
        .one_minus_beta1 = 0.1f,
        .one_minus_beta2 = 0.05f,
        .epsilon = 1e-8f,
        .weight_decay = 0.1f,
        .clip_norm = 1.0f,
    };
}

enum ct_err ct_train_state_init(struct ct_train_state *state, const struct ct_layout *layout,
                                bool residual) {
    memset(state, 0, sizeof *state);
    state->theta = ct_pages_zeroed(layout->parameters * sizeof(float));
    state->m = ct_pages_zeroed(layout->parameters * sizeof(float));
    state->v = ct_pages_zeroed(layout->parameters * sizeof(float));
    state->e = residual ? ct_pages_zeroed(layout->parameters * sizeof(float)) : NULL;
    if (state->theta == NULL || state->m == NULL || state->v == NULL ||
        (residual && state->e == NULL)) {
        ct_train_state_deinit(state);
        return ct_fail(CT_ERR_MEMORY, "no memory for the training state of %zu parameters",
                       layout->parameters);
    }
    return CT_OK;
}

void ct_train_state_deinit(struct ct_train_state *state) {
    free(state->theta);
    free(state->m);
    free(state->v);
    free(state->e);
    memset(state, 0, sizeof *state);
}

void ct_train_state_reset(struct ct_train_state *state, const struct ct_layout *layout) {
    memset(state->m, 0, layout->parameters * sizeof(float));
    memset(state->v, 0, layout->parameters * sizeof(float));
    if (state->e != NULL) {
        memset(state->e, 0, layout->parameters * sizeof(float));
    }
    state->step = 0;
}

static size_t tensor_values(const struct ct_tensor *tensor) {
    return (size_t)tensor->rows * tensor->columns;
}

/* A place in the sequence of all blocks of all tensors. */
struct cursor {
    uint32_t tensor;
    size_t start; /* of the block in the tensor */
};

static struct cursor next_block(const struct ct_layout *layout, struct cursor cursor) {
    cursor.start += BLOCK;
    if (cursor.start >= tensor_values(&layout->tensors[cursor.tensor])) {
        cursor = (struct cursor){.tensor = cursor.tensor + 1};
    }
    return cursor;
}

struct wave {
    size_t count;
    const float *blocks[WAVE_BLOCKS];
    uint16_t lengths[WAVE_BLOCKS];
    float sums[WAVE_BLOCKS];
};

static void wave_body(void *context, size_t begin, size_t end) {
    struct wave *wave = context;
    for (size_t i = begin; i < end; i++) {
        wave->sums[i] = ct_ops.sum_squares(wave->blocks[i], wave->lengths[i]);
    }
}

/* Blocks are summed in waves that fit on the stack: nothing is allocated in a step. */
double ct_gradient_norm(const struct ct_layout *layout, const float *gradient, uint32_t threads) {
    double total = 0.0;
    struct cursor cursor = {0};
    while (cursor.tensor < layout->tensor_count) {
        struct wave wave;
        wave.count = 0;
        for (; wave.count < WAVE_BLOCKS && cursor.tensor < layout->tensor_count; wave.count++) {
            const struct ct_tensor *tensor = &layout->tensors[cursor.tensor];
            const size_t left = tensor_values(tensor) - cursor.start;
            wave.blocks[wave.count] = gradient + tensor->offset + cursor.start;
            wave.lengths[wave.count] = (uint16_t)(left < BLOCK ? left : BLOCK);
            cursor = next_block(layout, cursor);
        }
        ct_parallel(threads, wave.count, 16, wave_body, &wave);
        for (size_t i = 0; i < wave.count; i++) {
            total += (double)wave.sums[i];
        }
    }
    return __builtin_sqrt(total);
}

static bool is_finite_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits >> 23 & 0xffu) != 0xffu;
}

static bool is_finite_double(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits >> 52 & 0x7ffu) != 0x7ffu;
}

/* fp32(1/(1 − β^t)), β^t by repeated multiplication; once the power is below 2^-60 the difference
 * is 1 exactly and stays so. */
static float bias_correction(float beta, uint32_t t) {
    double power = 1.0;
    for (uint32_t i = 0; i < t && power >= 0x1p-60; i++) {
        power *= (double)beta;
    }
    return ct_narrow(1.0 / (1.0 - power));
}

struct update {
    const struct ct_layout *layout;
    struct ct_adamw_factors factors;
    struct ct_train_state *state;
    const float *gradient;
};

/* Values [begin, end) of the flat array, tensor by tensor. */
static void update_body(void *context, size_t begin, size_t end) {
    const struct update *all = context;
    struct ct_adamw_factors factors = all->factors;
    for (uint32_t i = 0; i < all->layout->tensor_count; i++) {
        const struct ct_tensor *tensor = &all->layout->tensors[i];
        const size_t tensor_end = tensor->offset + tensor_values(tensor);
        const size_t from = tensor->offset > begin ? tensor->offset : begin;
        const size_t to = tensor_end < end ? tensor_end : end;
        if (from < to) {
            factors.decay = tensor->kind != CT_TENSOR_VECTOR;
            ct_ops.adamw(&factors, all->state->theta + from, all->state->m + from,
                         all->state->v + from, all->gradient + from, to - from);
        }
    }
}

struct ct_adamw_report ct_adamw_step(const struct ct_adamw *adamw, const struct ct_layout *layout,
                                     struct ct_train_state *state, const float *gradient,
                                     float loss, float lr) {
    const struct ct_mode mode = ct_mode_enter();
    struct ct_adamw_report report = {
        .gradient_norm = ct_gradient_norm(layout, gradient, state->threads),
    };
    if (!is_finite_float(loss) || !is_finite_double(report.gradient_norm)) {
        ct_mode_leave(mode);
        return report;
    }
    state->step++;
    const double clip = (double)adamw->clip_norm;
    const struct ct_adamw_factors factors = {
        .beta1 = adamw->beta1,
        .beta2 = adamw->beta2,
        .one_minus_beta1 = adamw->one_minus_beta1,
        .one_minus_beta2 = adamw->one_minus_beta2,
        .b1 = bias_correction(adamw->beta1, state->step),
        .b2 = bias_correction(adamw->beta2, state->step),
        .epsilon = adamw->epsilon,
        .c = report.gradient_norm > clip ? ct_narrow(clip / report.gradient_norm) : 1.0f,
        .minus_lr = -lr,
        .minus_lr_decay = ct_mul(-lr, adamw->weight_decay),
    };
    ct_mode_leave(mode);
    struct update all = {layout, factors, state, gradient};
    ct_parallel(state->threads, layout->parameters, 1024, update_body, &all);
    report.applied = true;
    return report;
}

void ct_rate_table(float *out, uint32_t entries, uint32_t warmup_entries, double peak,
                   double floor) {
    const struct ct_mode mode = ct_mode_enter();
    for (uint32_t i = 0; i < entries; i++) {
        if (i < warmup_entries) {
            out[i] = ct_narrow(peak * (double)(i + 1) / (double)warmup_entries);
            continue;
        }
        const double part = (double)(i - warmup_entries + 1) / (double)(entries - warmup_entries);
        const double wave = 1.0 + ct_cos64(0x1.921fb54442d18p+1 * part);
        out[i] = ct_narrow(floor + (peak - floor) * (0.5 * wave));
    }
    ct_mode_leave(mode);
}

float ct_reset_ramp(uint32_t step) {
    return step < 5 ? (float)(step + 1) / 5.0f : 1.0f;
}
