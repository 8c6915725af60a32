/* An assignment's computation: H inner steps from a base, then the compressed update. Pure in its
 * inputs, so the node that does it and the auditor who repeats it call this same function. */
#ifndef NODE_WORK_H
#define NODE_WORK_H

#include "site.h"

#include <cotrain/codec.h>
#include <cotrain/engine.h>
#include <cotrain/entry.h>
#include <cotrain/manifest.h>
#include <cotrain/window.h>

struct ct_work {
    const struct ct_manifest *manifest;
    const struct ct_chunks *chunks;
    const struct ct_windows *windows; /* rank 0 alone reads them */
    struct ct_engine *engine; /* of the manifest's shape, batch, leaves and numerics; of a site of
                                 many ranks, this one's part */
    float *gradient;          /* [parameters] scratch */
    /* Asked between steps, on rank 0; true ends the work with CT_ERR_STATE. May be NULL. */
    bool (*cancelled)(void *user);
    /* Told after every step. May be NULL. */
    void (*progress)(void *user, uint32_t step, float loss);
    void *user;
    struct ct_site *site; /* whose ranks all call ct_work_run; ct_site_alone for one */
};

struct ct_work_result {
    struct ct_buf payload; /* owned by the caller after success */
    struct ct_hash state;  /* state digest after the round */
    uint32_t skipped_steps;
    float loss; /* mean over the applied steps, as struct ct_commit has it; 0 if none was */
};

/* base[parameters] is the round's θ. state holds m, v, e, step from the last round (reset here when
 * the assignment says so); its theta is overwritten from base and ends as θ_local. The assignments
 * blob's digest goes into the payload header. CT_ERR_NUMERIC: a second step was not finite, the
 * assignment failed. */
CT_MUST_CHECK enum ct_err ct_work_run(const struct ct_work *work,
                                      const struct ct_assignment *assignment,
                                      const struct ct_hash *assignments_digest,
                                      uint64_t tokens_at_base, uint64_t planned_tokens,
                                      const float *base, struct ct_train_state *state,
                                      struct ct_work_result *out);

#endif
