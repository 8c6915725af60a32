/* What can be said of a site without knowing how its ranks talk to each other; and the site of one.
 */
#include "site.h"

#include <cotrain/assert.h>
#include <cotrain/crypto.h>
#include <cotrain/pairwise.h>

#include <stdio.h>
#include <string.h>

/* In the place of a part's first token: rank 0 wants to stop. */
#define NO_TOKEN UINT32_MAX

static enum ct_err move_alone(struct ct_site *site, void *data, size_t bytes) {
    (void)site, (void)data, (void)bytes;
    return CT_OK;
}

static enum ct_err gather_alone(struct ct_site *site, const void *mine, void *all, size_t bytes) {
    (void)site;
    memcpy(all, mine, bytes);
    return CT_OK;
}

static enum ct_err well_alone(struct ct_site *site) {
    (void)site;
    return CT_OK;
}

struct ct_site *ct_site_alone(void) {
    static const struct ct_site_calls calls = {
        .share = move_alone,
        .deal = move_alone,
        .gather = gather_alone,
        .check = well_alone,
    };
    static struct ct_site alone = {.ranks = 1, .calls = &calls};
    return &alone;
}

struct word {
    enum ct_err err;
    char detail[256];
};

enum ct_err ct_site_agree(struct ct_site *site, enum ct_err mine) {
    struct word word = {.err = mine}, all[CT_LEAVES_MAX];
    if (site->ranks == 1) {
        return mine;
    }
    if (mine != CT_OK) {
        snprintf(word.detail, sizeof word.detail, "%s", ct_err_detail());
    }
    CT_TRY(site->calls->gather(site, &word, all, sizeof word));
    for (uint32_t rank = 0; rank < site->ranks; rank++) {
        if (all[rank].err != CT_OK) {
            return ct_fail(all[rank].err, "rank %u: %.255s", rank, all[rank].detail);
        }
    }
    return CT_OK;
}

enum ct_err ct_site_same(struct ct_site *site, const char *what, const void *data, size_t bytes) {
    struct ct_hash all[CT_LEAVES_MAX];
    if (site->ranks == 1) {
        return CT_OK;
    }
    const struct ct_hash mine = ct_sha256((struct ct_bytes){data, bytes});
    CT_TRY(site->calls->gather(site, &mine, all, sizeof mine));
    for (uint32_t rank = 1; rank < site->ranks; rank++) {
        if (!ct_hash_equal(&all[0], &all[rank])) {
            return ct_fail(CT_ERR_CONFIG, "%s of rank %u and of rank 0 differ", what, rank);
        }
    }
    return CT_OK;
}

enum ct_err ct_site_options(const struct ct_site *site, struct ct_engine_options *options) {
    const uint32_t ranks = site->ranks;
    if (ranks > options->leaves || options->leaves % ranks != 0) {
        return ct_fail(CT_ERR_CONFIG,
                       "%u ranks cannot share a step of %u leaves: start 1, 2, 4, … up to %u ranks",
                       ranks, options->leaves, options->leaves);
    }
    if (options->batch % options->leaves != 0) {
        return ct_fail(CT_ERR_CONFIG, "batch %u is not a multiple of %u leaves", options->batch,
                       options->leaves);
    }
    options->batch /= ranks;
    options->leaves /= ranks;
    options->ranks = ranks;
    if (options->threads == 0) {
        options->threads = site->threads;
    }
    return CT_OK;
}

enum ct_err ct_site_deal_tokens(struct ct_site *site, bool *go, uint32_t *tokens, size_t count) {
    if (site->rank == 0 && !*go) {
        for (uint32_t rank = 0; rank < site->ranks; rank++) {
            tokens[rank * count] = NO_TOKEN;
        }
    }
    CT_TRY(site->calls->deal(site, tokens, count * sizeof *tokens));
    *go = tokens[0] != NO_TOKEN;
    return CT_OK;
}

static void told(void *context, size_t begin, size_t end) {
    struct ct_site *site = context;
    site->calls->sum_ready(site, begin, end);
}

enum ct_err ct_site_gradient(struct ct_site *site, struct ct_engine *engine,
                             const struct ct_layout *layout, const float *theta,
                             const uint32_t *tokens, float *gradient, float *out_loss) {
    double sums[CT_LEAVES_MAX];
    const struct ct_ready ready = {told, site};
    if (site->ranks == 1) {
        ct_engine_gradient(engine, theta, tokens, gradient, out_loss);
        return CT_OK;
    }
    site->calls->sum_begin(site, gradient, layout->parameters);
    const double sum = ct_engine_part(engine, theta, tokens, gradient, &ready);
    CT_TRY(site->calls->sum_end(site));
    CT_TRY(site->calls->gather(site, &sum, sums, sizeof sum));
    *out_loss = ct_engine_mean_loss(engine, ct_sum_pairwise(sums, site->ranks));
    return CT_OK;
}
