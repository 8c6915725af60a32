/* A step shared by a site, on a site of threads: the bits of one engine for any number of ranks,
 * the word to stop, and the agreements that keep ranks together. */
#include "node/site.h"

#include <cotrain/isa.h>
#include <cotrain/pairwise.h>

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RANKS_MAX 8u
#define LEAVES    8u
#define BATCH     8u

/* Ranks as threads: everything goes through a table of pointers, between two barriers. */
struct hall {
    pthread_barrier_t barrier;
    void *places[RANKS_MAX];
    float *sums[RANKS_MAX];
    size_t told[RANKS_MAX], counts[RANKS_MAX];
};

struct thread_site {
    struct ct_site base;
    struct hall *hall;
};

static struct thread_site *own(struct ct_site *site) {
    return (struct thread_site *)site;
}

static void meet(struct ct_site *site) {
    pthread_barrier_wait(&own(site)->hall->barrier);
}

static enum ct_err share(struct ct_site *site, void *data, size_t bytes) {
    own(site)->hall->places[site->rank] = data;
    meet(site);
    if (site->rank != 0) {
        memcpy(data, own(site)->hall->places[0], bytes);
    }
    meet(site);
    return CT_OK;
}

static enum ct_err deal(struct ct_site *site, void *parts, size_t bytes) {
    own(site)->hall->places[site->rank] = parts;
    meet(site);
    if (site->rank != 0) {
        memcpy(parts, (char *)own(site)->hall->places[0] + site->rank * bytes, bytes);
    }
    meet(site);
    return CT_OK;
}

static enum ct_err gather(struct ct_site *site, const void *mine, void *all, size_t bytes) {
    own(site)->hall->places[site->rank] = all;
    meet(site);
    for (uint32_t rank = 0; rank < site->ranks; rank++) {
        memcpy((char *)own(site)->hall->places[rank] + site->rank * bytes, mine, bytes);
    }
    meet(site);
    return CT_OK;
}

static void sum_begin(struct ct_site *site, float *values, size_t count) {
    struct hall *hall = own(site)->hall;
    hall->sums[site->rank] = values;
    hall->counts[site->rank] = count;
    hall->told[site->rank] = 0;
}

static void sum_ready(struct ct_site *site, size_t begin, size_t end) {
    own(site)->hall->told[site->rank] += end - begin;
}

static enum ct_err sum_end(struct ct_site *site) {
    struct hall *hall = own(site)->hall;
    meet(site);
    if (site->rank == 0) {
        ct_add_pairwise(hall->sums[0], (const float *const *)hall->sums, site->ranks,
                        hall->counts[0]);
    }
    meet(site);
    if (site->rank != 0) {
        memcpy(hall->sums[site->rank], hall->sums[0], hall->counts[0] * sizeof(float));
    }
    meet(site);
    return hall->told[site->rank] == hall->counts[site->rank]
               ? CT_OK
               : ct_fail(CT_ERR_STATE, "not all of the gradient was named");
}

static const struct ct_site_calls calls = {share,     deal,    gather, sum_begin,
                                           sum_ready, sum_end, NULL};

typedef void (*body)(struct ct_site *site, void *user);

struct job {
    struct thread_site site;
    body run;
    void *user;
};

static void *rank_main(void *user) {
    struct job *job = user;
    job->run(&job->site.base, job->user);
    return NULL;
}

/* Runs `run` in every rank; users[rank] is its own. cmocka's checks belong to the main thread, so
 * ranks write down what they find. */
static void on_ranks(uint32_t ranks, body run, void *users, size_t stride) {
    struct hall hall = {0};
    struct job jobs[RANKS_MAX];
    pthread_t threads[RANKS_MAX];
    assert_int_equal(pthread_barrier_init(&hall.barrier, NULL, ranks), 0);
    for (uint32_t rank = 0; rank < ranks; rank++) {
        jobs[rank] =
            (struct job){{{rank, ranks, 1, &calls}, &hall}, run, (char *)users + rank * stride};
        assert_int_equal(pthread_create(&threads[rank], NULL, rank_main, &jobs[rank]), 0);
    }
    for (uint32_t rank = 0; rank < ranks; rank++) {
        pthread_join(threads[rank], NULL);
    }
    pthread_barrier_destroy(&hall.barrier);
}

struct step {
    const struct ct_layout *layout;
    const float *theta;
    const uint32_t *all; /* rank 0's, [BATCH][context + 1] */
    enum ct_err err;
    float loss;
    float *gradient;
    bool went, stopped;
};

static enum ct_err run_step(struct ct_site *site, struct step *step) {
    struct ct_engine_options options = {
        .numerics = CT_NUMERICS_BF16_1, .batch = BATCH, .leaves = LEAVES};
    const size_t window = step->layout->shape.context + 1;
    uint32_t tokens[BATCH * 16] = {0};
    struct ct_engine *engine;
    bool go = true;
    CT_TRY(ct_site_options(site, &options));
    CT_TRY(ct_engine_open(step->layout, &options, &engine));
    if (site->rank == 0) {
        memcpy(tokens, step->all, BATCH * window * sizeof *tokens);
    }
    enum ct_err err = ct_site_deal_tokens(site, &go, tokens, options.batch * window);
    step->went = go;
    if (err == CT_OK) {
        err = ct_site_gradient(site, engine, step->layout, step->theta, tokens, step->gradient,
                               &step->loss);
    }
    ct_engine_close(engine);
    CT_TRY(err);
    go = site->rank != 0;
    err = ct_site_deal_tokens(site, &go, tokens, options.batch * window);
    step->stopped = !go;
    return err;
}

static void step_body(struct ct_site *site, void *user) {
    struct step *step = user;
    step->err = run_step(site, step);
}

static void ranks_have_the_bits_of_one(void **state) {
    (void)state;
    struct ct_layout layout;
    const struct ct_model_shape shape = {
        .arch = CT_ARCH_GPT2, .vocab = 37, .context = 15, .layers = 2, .heads = 2, .width = 32};
    assert_int_equal(ct_layout_init(&layout, &shape), CT_OK);
    float *theta = malloc(layout.parameters * sizeof *theta);
    assert_non_null(theta);
    ct_layout_draw(&layout, &(struct ct_hash){{3}}, theta);
    uint32_t tokens[BATCH * 16];
    for (uint32_t i = 0; i < BATCH * 16; i++) {
        tokens[i] = (i * i + i / 5) % 37;
    }
    struct step alone = {.layout = &layout, .theta = theta, .all = tokens};
    alone.gradient = malloc(layout.parameters * sizeof(float));
    step_body(ct_site_alone(), &alone);
    assert_int_equal(alone.err, CT_OK);
    for (uint32_t ranks = 2; ranks <= RANKS_MAX; ranks *= 2) {
        struct step steps[RANKS_MAX];
        for (uint32_t rank = 0; rank < ranks; rank++) {
            steps[rank] = (struct step){.layout = &layout, .theta = theta, .all = tokens};
            steps[rank].gradient = malloc(layout.parameters * sizeof(float));
            assert_non_null(steps[rank].gradient);
        }
        on_ranks(ranks, step_body, steps, sizeof steps[0]);
        for (uint32_t rank = 0; rank < ranks; rank++) {
            assert_int_equal(steps[rank].err, CT_OK);
            assert_true(steps[rank].went && steps[rank].stopped);
            assert_memory_equal(&steps[rank].loss, &alone.loss, sizeof alone.loss);
            assert_memory_equal(steps[rank].gradient, alone.gradient,
                                layout.parameters * sizeof(float));
            free(steps[rank].gradient);
        }
    }
    free(alone.gradient);
    free(theta);
    ct_layout_deinit(&layout);
}

struct opinion {
    enum ct_err mine, heard;
    uint64_t fact;
    char detail[128];
};

static void agree_body(struct ct_site *site, void *user) {
    struct opinion *opinion = user;
    if (opinion->mine != CT_OK) {
        (void)ct_fail(opinion->mine, "disk %u is full", site->rank);
    }
    opinion->heard = ct_site_agree(site, opinion->mine);
    snprintf(opinion->detail, sizeof opinion->detail, "%s", ct_err_detail());
}

static void compare_body(struct ct_site *site, void *user) {
    struct opinion *opinion = user;
    opinion->heard = ct_site_same(site, "the number", &opinion->fact, sizeof opinion->fact);
    snprintf(opinion->detail, sizeof opinion->detail, "%s", ct_err_detail());
}

static void ranks_fail_together(void **state) {
    (void)state;
    struct opinion all[4] = {{.mine = CT_OK}};
    on_ranks(4, agree_body, all, sizeof all[0]);
    for (int rank = 0; rank < 4; rank++) {
        assert_int_equal(all[rank].heard, CT_OK);
    }
    all[2].mine = CT_ERR_IO;
    all[3].mine = CT_ERR_MEMORY;
    on_ranks(4, agree_body, all, sizeof all[0]);
    for (int rank = 0; rank < 4; rank++) {
        assert_int_equal(all[rank].heard, CT_ERR_IO);
        assert_string_equal(all[rank].detail, "rank 2: disk 2 is full");
    }
    on_ranks(4, compare_body, all, sizeof all[0]);
    for (int rank = 0; rank < 4; rank++) {
        assert_int_equal(all[rank].heard, CT_OK);
    }
    all[1].fact = 1;
    on_ranks(4, compare_body, all, sizeof all[0]);
    for (int rank = 0; rank < 4; rank++) {
        assert_int_equal(all[rank].heard, CT_ERR_CONFIG);
        assert_string_equal(all[rank].detail, "the number of rank 1 and of rank 0 differ");
    }
    /* Alone, one's own words stay as they are. */
    (void)ct_fail(CT_ERR_IO, "as it was");
    assert_int_equal(ct_site_agree(ct_site_alone(), CT_ERR_IO), CT_ERR_IO);
    assert_string_equal(ct_err_detail(), "as it was");
}

static void steps_are_cut_for_ranks(void **state) {
    (void)state;
    const struct ct_site four = {.rank = 1, .ranks = 4, .threads = 3, .calls = &calls};
    const struct ct_engine_options whole = {.batch = 16, .leaves = 8};
    struct ct_engine_options part = whole;
    assert_int_equal(ct_site_options(&four, &part), CT_OK);
    assert_int_equal(part.batch, 4);
    assert_int_equal(part.leaves, 2);
    assert_int_equal(part.ranks, 4);
    assert_int_equal(part.threads, 3);
    part = whole;
    part.threads = 5;
    assert_int_equal(ct_site_options(&four, &part), CT_OK);
    assert_int_equal(part.threads, 5);
    part = (struct ct_engine_options){.batch = 16, .leaves = 2};
    assert_int_equal(ct_site_options(&four, &part), CT_ERR_CONFIG);
    part = (struct ct_engine_options){.batch = 12, .leaves = 8};
    assert_int_equal(ct_site_options(&four, &part), CT_ERR_CONFIG);
    part = whole;
    assert_int_equal(ct_site_options(ct_site_alone(), &part), CT_OK);
    assert_int_equal(part.batch, 16);
    assert_int_equal(part.ranks, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_have_the_bits_of_one),
        cmocka_unit_test(ranks_fail_together),
        cmocka_unit_test(steps_are_cut_for_ranks),
    };
    if (ct_isa_start() != CT_OK) {
        fprintf(stderr, "%s\n", ct_err_detail());
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
