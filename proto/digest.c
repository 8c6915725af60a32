/* Digests of models and states: little-endian binary32 as they lie in memory. */
#include <cotrain/assert.h>
#include <cotrain/fold.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "digests are taken over little-endian binary32 in place"
#endif

struct ct_hash ct_model_digest(const struct ct_layout *layout, const float *theta) {
    struct ct_sha256 sha;
    ct_sha256_init(&sha);
    ct_sha256_update(&sha, theta, layout->parameters * sizeof theta[0]);
    return ct_sha256_final(&sha);
}

struct ct_hash ct_state_digest(const struct ct_layout *layout, const struct ct_train_state *state) {
    CT_ASSERT(state->e != NULL);
    const float *const parts[] = {state->theta, state->m, state->v, state->e};
    struct ct_sha256 sha;
    ct_sha256_init(&sha);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        ct_sha256_update(&sha, parts[i], layout->parameters * sizeof parts[i][0]);
    }
    ct_sha256_update(&sha, &state->step, sizeof state->step);
    return ct_sha256_final(&sha);
}
