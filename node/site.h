/* A site: the ranks behind one node identity. Each has a whole copy of model and optimizer and
 * computes its own leaves of every step (numerics.md E6), so that what one machine holds, all hold.
 *
 * This header knows nothing of MPI: ct_site_open, in cotrain-mpi alone, opens a site of MPI ranks;
 * ct_site_alone is the site of one, whose calls all come true at once. The calls are collective:
 * every rank makes the same ones in the same order, one thread at a time, and may wait for the
 * slowest. Once one has failed with CT_ERR_NETWORK the site is lost: a rank is gone, and every
 * further call fails. */
#ifndef NODE_SITE_H
#define NODE_SITE_H

#include <cotrain/engine.h>
#include <cotrain/types.h>

struct ct_site;

struct ct_site_calls {
    /* data[bytes] of rank 0 to everyone's data. */
    enum ct_err (*share)(struct ct_site *site, void *data, size_t bytes);
    /* parts[ranks][bytes] on rank 0: part r to the parts[bytes] of rank r. */
    enum ct_err (*deal)(struct ct_site *site, void *parts, size_t bytes);
    /* mine[bytes] of every rank to everyone's all[ranks][bytes]. */
    enum ct_err (*gather)(struct ct_site *site, const void *mine, void *all, size_t bytes);

    /* The pairwise sum over ranks of values[count], in place and the same bits on all: from begin
     * on the ranges [begin, end) that `ready` names are summed while others are still computed,
     * until all of values was named once, in the same order on every rank. `ready` returns at once;
     * `end` waits. */
    void (*sum_begin)(struct ct_site *site, float *values, size_t count);
    void (*sum_ready)(struct ct_site *site, size_t begin, size_t end);
    enum ct_err (*sum_end)(struct ct_site *site);

    /* Not collective: CT_ERR_NETWORK with the reason when the site is lost, as far as is known. */
    enum ct_err (*check)(struct ct_site *site);
};

struct ct_site {
    uint32_t rank, ranks;
    uint32_t threads; /* this rank's share of its cores; 0: all of them */
    const struct ct_site_calls *calls;
};

/* The site of one; it has no state. */
struct ct_site *ct_site_alone(void);

/* The site of all ranks that the launcher (mpirun) started. Call it first in main, once: it may
 * change argc and argv. CT_ERR_UNSUPPORTED when this MPI cannot serve more than one thread,
 * CT_ERR_CONFIG when the ranks are no power of two up to CT_LEAVES_MAX or run different programs.
 */
CT_MUST_CHECK enum ct_err ct_site_open(int *argc, char ***argv, struct ct_site **out,
                                       bool *out_speaks);
/* Collective, unless the site is lost: the launcher then ends what is left of it. */
void ct_site_close(struct ct_site *site);

/* Every rank says how it fares, CT_OK or the code of its last ct_fail; all get the code and the
 * detail of the first rank that failed, so that they stop together. */
CT_MUST_CHECK enum ct_err ct_site_agree(struct ct_site *site, enum ct_err mine);

/* CT_ERR_CONFIG, on all, with `what` and the rank when some rank's data differ from rank 0's. */
CT_MUST_CHECK enum ct_err ct_site_same(struct ct_site *site, const char *what, const void *data,
                                       size_t bytes);

/* Turns a step's options into this rank's: batch and leaves are divided by the ranks, and threads
 * that are not given become the rank's share. CT_ERR_CONFIG when ranks is no power of two up to the
 * leaves. */
CT_MUST_CHECK enum ct_err ct_site_options(const struct ct_site *site,
                                          struct ct_engine_options *options);

/* Rank 0 has the step's tokens[count · ranks], all others get their part in tokens[count]; or *go
 * false on all when rank 0 says so. */
CT_MUST_CHECK enum ct_err ct_site_deal_tokens(struct ct_site *site, bool *go, uint32_t *tokens,
                                              size_t count);

/* A step as ct_engine_gradient: the engine has the options of ct_site_options, tokens are this
 * rank's part; gradient and loss are the whole step's. */
CT_MUST_CHECK enum ct_err ct_site_gradient(struct ct_site *site, struct ct_engine *engine,
                                           const struct ct_layout *layout, const float *theta,
                                           const uint32_t *tokens, float *gradient,
                                           float *out_loss);

#endif
