#include "work.h"

#include <cotrain/assert.h>
#include <cotrain/fold.h>
#include <cotrain/mode.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Through volatile, so that neither is computed outside the mode (E1). */
static float step_rate(float rate, float ramp) {
    struct ct_mode mode = ct_mode_enter();
    volatile float a = rate;
    volatile float b = ramp;
    volatile float product = a * b;
    ct_mode_leave(mode);
    return product;
}

static float mean_loss(double sum, uint32_t steps) {
    if (steps == 0) {
        return 0.0f;
    }
    struct ct_mode mode = ct_mode_enter();
    volatile double a = sum;
    volatile float mean = (float)(a / (double)steps);
    ct_mode_leave(mode);
    return mean;
}

/* This rank's part of a step's tokens; *out_go false when the work is cancelled. */
static enum ct_err bring_tokens(const struct ct_work *work, uint64_t position, uint32_t *tokens,
                                bool *out_go) {
    const struct ct_manifest *manifest = work->manifest;
    const size_t part = manifest->batch / work->site->ranks;
    *out_go = true;
    if (work->site->rank == 0) {
        *out_go = work->cancelled == NULL || !work->cancelled(work->user);
        ct_windows_read(work->windows, position, manifest->batch, tokens);
    }
    return ct_site_deal_tokens(work->site, out_go, tokens, part * (manifest->model.context + 1));
}

/* The inner steps: state->theta goes from base to θ_local. */
static enum ct_err train(const struct ct_work *work, const struct ct_assignment *assignment,
                         uint64_t tokens_at_base, uint64_t planned_tokens, uint32_t *tokens,
                         struct ct_train_state *state, struct ct_work_result *out) {
    const struct ct_manifest *manifest = work->manifest;
    uint32_t applied = 0;
    double sum = 0.0;
    for (uint32_t s = 0; s < assignment->steps; s++) {
        bool go = false;
        CT_TRY(
            bring_tokens(work, assignment->position + (uint64_t)s * manifest->batch, tokens, &go));
        if (!go) {
            return ct_fail(CT_ERR_STATE, "the assignment was cancelled after %u of %u steps", s,
                           assignment->steps);
        }
        float loss = 0.0f;
        CT_TRY(ct_site_gradient(work->site, work->engine, work->chunks->layout, state->theta,
                                tokens, work->gradient, &loss));
        float rate =
            ct_manifest_rate(manifest, tokens_at_base, planned_tokens, s, assignment->steps);
        float lr = step_rate(rate, ct_reset_ramp(state->step));
        struct ct_adamw_report report =
            ct_adamw_step(&manifest->adamw, work->chunks->layout, state, work->gradient, loss, lr);
        if (report.applied) {
            applied++;
            sum += (double)loss;
        } else if (++out->skipped_steps == 2) {
            return ct_fail(CT_ERR_NUMERIC,
                           "two steps of the assignment had a loss or gradient that is not finite "
                           "(the second was step %u of %u)",
                           s + 1, assignment->steps);
        }
        if (work->progress != NULL) {
            work->progress(work->user, s + 1, loss);
        }
    }
    out->loss = mean_loss(sum, applied);
    return CT_OK;
}

enum ct_err ct_work_run(const struct ct_work *work, const struct ct_assignment *assignment,
                        const struct ct_hash *assignments_digest, uint64_t tokens_at_base,
                        uint64_t planned_tokens, const float *base, struct ct_train_state *state,
                        struct ct_work_result *out) {
    const struct ct_layout *layout = work->chunks->layout;
    *out = (struct ct_work_result){0};
    if (assignment->steps == 0 || assignment->steps > CT_STEPS_MAX) {
        return ct_fail(CT_ERR_RULE, "an assignment of %u steps; 1 to %u are possible",
                       assignment->steps, CT_STEPS_MAX);
    }
    size_t window = (size_t)layout->shape.context + 1;
    uint32_t *tokens = calloc(work->manifest->batch * window, sizeof *tokens);
    if (tokens == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a step's tokens");
    }
    if (assignment->reset) {
        ct_train_state_reset(state, layout);
    }
    memcpy(state->theta, base, layout->parameters * sizeof *base);
    enum ct_err err = train(work, assignment, tokens_at_base, planned_tokens, tokens, state, out);
    free(tokens);
    CT_TRY(err);

    size_t maximum = ct_update_bytes_max(work->chunks);
    ct_buf_init(&out->payload, maximum);
    err = ct_buf_reserve(&out->payload, maximum);
    if (err != CT_OK) {
        ct_buf_deinit(&out->payload);
        return err;
    }
    struct ct_update_header header = {.assignment = *assignments_digest,
                                      .steps = assignment->steps};
    ct_update_encode(work->chunks, &header, base, state->theta, state->e, out->payload.data,
                     &out->payload.length);
    CT_ASSERT(out->payload.length <= maximum);
    out->state = ct_state_digest(layout, state);
    return CT_OK;
}
