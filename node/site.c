/* A site of MPI ranks. One thread beside the computing ones, the mover, sums gradients over ranks
 * while the backward pass goes on: all-to-all of slices, the ordered sum of this rank's own slice,
 * all-gather. While nobody waits for it, it sleeps between two looks, since a waiting MPI library
 * would take a core.
 *
 * Threads: all collective calls are made by one thread at a time; between sum_begin and sum_end the
 * mover alone calls MPI. The lock hands over in between, so MPI_THREAD_SERIALIZED is enough. */
#include "site.h"

#include <cotrain/assert.h>
#include <cotrain/limits.h>
#include <cotrain/pairwise.h>

#include <errno.h>
#include <mpi.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    PIECE_MAX = 1 << 20, /* values that are summed at once */
    PIECE_MIN = 1 << 16, /* neighbouring ranges are put together up to here */
    RANGES_MAX = CT_LAYERS_MAX + 2,
    FLIGHTS = 4, /* pieces on their way at once */
    SLICE_GRAIN = 16,
    SHARE_BYTES = 1 << 28, /* of what is shared, in one call of MPI */
    HOT_LOOKS = 1000,
    REST_US = 100,
    LOOKS_PER_LIFE_CHECK = 500,
};

struct range {
    size_t begin, end;
};

enum stage { SLICING, SUMMED, SPREADING, SPREAD };

/* A piece of the gradient on its way. */
struct flight {
    struct range piece;
    enum stage stage;
    MPI_Request request;
    float *room; /* [ranks][own slice]: every rank's values of this rank's slice */
    /* MPI reads these until the request is done. */
    int counts[CT_LEAVES_MAX], places[CT_LEAVES_MAX];
    int own_counts[CT_LEAVES_MAX], own_places[CT_LEAVES_MAX];
};

struct mpi_site {
    struct ct_site base;
    MPI_Comm words, slices, wholes; /* calls; all-to-all; all-gather: each in an order of its own */
    pid_t watched[CT_LEAVES_MAX];   /* ranks whose processes can be seen from here; 0: not */
    atomic_bool lost;

    pthread_t mover;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under the lock */
    bool stop, summing, awaited;
    char why[160]; /* when lost */
    struct range ranges[RANGES_MAX];
    uint32_t range_first, range_count;
    struct range held; /* waits for a neighbour */
    size_t untold;
    float *values;

    /* the mover's own: flights [first, first + count) mod FLIGHTS, the first `spreading` of them on
     * their way back */
    struct flight flights[FLIGHTS];
    uint32_t first, count, spreading;
    float *room;
};

static struct mpi_site *mpi(struct ct_site *site) {
    return (struct mpi_site *)site;
}

static void lose(struct mpi_site *site, const char *why) {
    pthread_mutex_lock(&site->lock);
    if (!atomic_load(&site->lost)) {
        snprintf(site->why, sizeof site->why, "%s", why);
        atomic_store(&site->lost, true);
    }
    pthread_cond_broadcast(&site->changed);
    pthread_mutex_unlock(&site->lock);
}

static enum ct_err fail_lost(struct mpi_site *site) {
    pthread_mutex_lock(&site->lock);
    char why[sizeof site->why];
    memcpy(why, site->why, sizeof why);
    pthread_mutex_unlock(&site->lock);
    return ct_fail(
        CT_ERR_NETWORK,
        "the site is lost: %s; start it again with the same command: it goes on where it stood",
        why);
}

/* True when MPI said MPI_SUCCESS. */
static bool well(struct mpi_site *site, int code) {
    if (code == MPI_SUCCESS) {
        return true;
    }
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    lose(site, text);
    return false;
}

/* The launcher ends a site that has lost a rank; where it does so by SIGTERM only, or late, the
 * ranks of the same machine see it themselves. */
static void check_lives(struct mpi_site *site) {
    for (uint32_t rank = 0; rank < site->base.ranks; rank++) {
        if (site->watched[rank] != 0 && kill(site->watched[rank], 0) != 0 && errno == ESRCH) {
            char why[80];
            snprintf(why, sizeof why, "rank %u (process %d) has died", rank,
                     (int)site->watched[rank]);
            lose(site, why);
        }
    }
}

static void rest(struct mpi_site *site, unsigned looks, bool hot) {
    if (looks % LOOKS_PER_LIFE_CHECK == LOOKS_PER_LIFE_CHECK - 1) {
        check_lives(site);
    }
    if (hot && looks < HOT_LOOKS) {
        sched_yield();
        return;
    }
    /* Nobody waits for the answer, or it takes long: rank 0 may be waiting for a round. */
    const long us = looks < 10 * HOT_LOOKS ? REST_US : 10 * REST_US;
    nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL);
}

static enum ct_err finish(struct mpi_site *site, int code, MPI_Request *request) {
    int done = !well(site, code);
    for (unsigned looks = 0; !done && !atomic_load(&site->lost); looks++) {
        if (well(site, MPI_Test(request, &done, MPI_STATUS_IGNORE)) && !done) {
            rest(site, looks, true);
        }
    }
    return atomic_load(&site->lost) ? fail_lost(site) : CT_OK;
}

static enum ct_err share(struct ct_site *base, void *data, size_t bytes) {
    struct mpi_site *site = mpi(base);
    for (size_t at = 0; at < bytes; at += SHARE_BYTES) {
        const size_t left = bytes - at, count = left < SHARE_BYTES ? left : SHARE_BYTES;
        MPI_Request request;
        const int code =
            MPI_Ibcast((char *)data + at, (int)count, MPI_BYTE, 0, site->words, &request);
        CT_TRY(finish(site, code, &request));
    }
    return CT_OK;
}

static enum ct_err deal(struct ct_site *base, void *parts, size_t bytes) {
    struct mpi_site *site = mpi(base);
    CT_ASSERT(bytes <= SHARE_BYTES);
    MPI_Request request;
    const bool root = base->rank == 0;
    const int code =
        MPI_Iscatter(root ? parts : NULL, (int)bytes, MPI_BYTE, root ? MPI_IN_PLACE : parts,
                     (int)bytes, MPI_BYTE, 0, site->words, &request);
    return finish(site, code, &request);
}

static enum ct_err gather(struct ct_site *base, const void *mine, void *all, size_t bytes) {
    struct mpi_site *site = mpi(base);
    CT_ASSERT(bytes <= SHARE_BYTES);
    MPI_Request request;
    const int code = MPI_Iallgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE,
                                    site->words, &request);
    return finish(site, code, &request);
}

static enum ct_err check(struct ct_site *base) {
    struct mpi_site *site = mpi(base);
    check_lives(site);
    return atomic_load(&site->lost) ? fail_lost(site) : CT_OK;
}

/* Where slice `rank` of `count` values begins. */
static size_t cut(const struct mpi_site *site, size_t count, uint32_t rank) {
    const size_t grains = (count + SLICE_GRAIN - 1) / SLICE_GRAIN;
    const size_t at = grains * rank / site->base.ranks * SLICE_GRAIN;
    return at < count ? at : count;
}

static float *own_slice(const struct mpi_site *site, const struct flight *flight) {
    return site->values + flight->piece.begin + flight->places[site->base.rank];
}

/* This rank's values of each slice to the rank that adds them up. */
static void start(struct mpi_site *site, struct range piece) {
    struct flight *flight = &site->flights[(site->first + site->count++) % FLIGHTS];
    const size_t count = piece.end - piece.begin;
    const uint32_t me = site->base.rank;
    const size_t own = cut(site, count, me + 1) - cut(site, count, me);
    flight->piece = piece;
    flight->stage = SLICING;
    for (uint32_t rank = 0; rank < site->base.ranks; rank++) {
        flight->places[rank] = (int)cut(site, count, rank);
        flight->counts[rank] = (int)(cut(site, count, rank + 1) - cut(site, count, rank));
        flight->own_places[rank] = (int)(own * rank);
        flight->own_counts[rank] = (int)own;
    }
    well(site, MPI_Ialltoallv(site->values + piece.begin, flight->counts, flight->places, MPI_FLOAT,
                              flight->room, flight->own_counts, flight->own_places, MPI_FLOAT,
                              site->slices, &flight->request));
}

static void add(struct mpi_site *site, struct flight *flight) {
    const float *parts[CT_LEAVES_MAX];
    for (uint32_t rank = 0; rank < site->base.ranks; rank++) {
        parts[rank] = flight->room + flight->own_places[rank];
    }
    ct_add_pairwise(own_slice(site, flight), parts, site->base.ranks,
                    (size_t)flight->own_counts[0]);
}

/* The sums of all slices to everyone, in place: whoever needed the old values has them by now,
 * since the all-to-all of this piece is over here. */
static void spread(struct mpi_site *site, struct flight *flight) {
    flight->stage = SPREADING;
    well(site, MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL,
                               site->values + flight->piece.begin, flight->counts, flight->places,
                               MPI_FLOAT, site->wholes, &flight->request));
}

/* One look at everything on its way; true when something has changed. */
static bool look(struct mpi_site *site) {
    bool changed = false;
    for (uint32_t i = 0; i < site->count && !atomic_load(&site->lost); i++) {
        struct flight *flight = &site->flights[(site->first + i) % FLIGHTS];
        int done = 0;
        if (flight->stage != SLICING && flight->stage != SPREADING) {
            continue;
        }
        if (well(site, MPI_Test(&flight->request, &done, MPI_STATUS_IGNORE)) && done) {
            changed = true;
            if (flight->stage == SLICING) {
                add(site, flight);
            }
            flight->stage++;
        }
    }
    /* In the order of pieces, for MPI matches collective calls by their order. */
    while (site->spreading < site->count && !atomic_load(&site->lost) &&
           site->flights[(site->first + site->spreading) % FLIGHTS].stage == SUMMED) {
        spread(site, &site->flights[(site->first + site->spreading++) % FLIGHTS]);
    }
    while (site->count > 0 && site->flights[site->first].stage == SPREAD) {
        site->first = (site->first + 1) % FLIGHTS;
        site->count--;
        site->spreading--;
    }
    return changed;
}

/* The next piece of what was named, if there is one. Pieces follow from the ranges alone, so they
 * are the same on every rank. */
static bool next_piece(struct mpi_site *site, struct range *out) {
    pthread_mutex_lock(&site->lock);
    const bool some = site->range_count > 0;
    if (some) {
        struct range *range = &site->ranges[site->range_first];
        const size_t left = range->end - range->begin;
        *out = (struct range){range->begin, range->begin + (left < PIECE_MAX ? left : PIECE_MAX)};
        range->begin = out->end;
        if (range->begin == range->end) {
            site->range_first = (site->range_first + 1) % RANGES_MAX;
            site->range_count--;
        }
    }
    pthread_mutex_unlock(&site->lock);
    return some;
}

/* Sums what was named, until all of that is everywhere. */
static void move(struct mpi_site *site) {
    unsigned looks = 0;
    struct range piece;
    while (!atomic_load(&site->lost)) {
        while (site->count < FLIGHTS && next_piece(site, &piece)) {
            start(site, piece);
        }
        if (site->count == 0) {
            return;
        }
        if (look(site)) {
            looks = 0;
            continue;
        }
        pthread_mutex_lock(&site->lock);
        const bool hot = site->awaited;
        pthread_mutex_unlock(&site->lock);
        rest(site, looks++, hot);
    }
}

static void *mover_main(void *user) {
    struct mpi_site *site = user;
    pthread_mutex_lock(&site->lock);
    while (!site->stop) {
        if (site->range_count > 0 && !atomic_load(&site->lost)) {
            pthread_mutex_unlock(&site->lock);
            move(site);
            pthread_mutex_lock(&site->lock);
        } else if (site->summing && site->untold == 0) {
            site->summing = false;
            pthread_cond_broadcast(&site->changed);
        } else {
            pthread_cond_wait(&site->changed, &site->lock);
        }
    }
    pthread_mutex_unlock(&site->lock);
    return NULL;
}

static void sum_begin(struct ct_site *base, float *values, size_t count) {
    struct mpi_site *site = mpi(base);
    pthread_mutex_lock(&site->lock);
    CT_ASSERT(!site->summing || atomic_load(&site->lost));
    site->summing = true;
    site->awaited = false;
    site->values = values;
    site->untold = count;
    site->held = (struct range){0, 0};
    pthread_mutex_unlock(&site->lock);
}

static void push(struct mpi_site *site, struct range range) {
    if (range.begin < range.end) {
        CT_ASSERT(site->range_count < RANGES_MAX);
        site->ranges[(site->range_first + site->range_count++) % RANGES_MAX] = range;
        pthread_cond_broadcast(&site->changed);
    }
}

static void sum_ready(struct ct_site *base, size_t begin, size_t end) {
    struct mpi_site *site = mpi(base);
    pthread_mutex_lock(&site->lock);
    struct range *held = &site->held;
    CT_ASSERT(end - begin <= site->untold);
    site->untold -= end - begin;
    if (held->end - held->begin >= PIECE_MIN || (held->begin != end && held->end != begin)) {
        push(site, *held);
        *held = (struct range){begin, end};
    } else if (held->begin == end) {
        held->begin = begin;
    } else {
        held->end = end;
    }
    if (site->untold == 0) {
        push(site, *held);
        *held = (struct range){0, 0};
    }
    pthread_mutex_unlock(&site->lock);
}

static enum ct_err sum_end(struct ct_site *base) {
    struct mpi_site *site = mpi(base);
    pthread_mutex_lock(&site->lock);
    CT_ASSERT(site->untold == 0);
    site->awaited = true;
    while (site->summing && !atomic_load(&site->lost)) {
        pthread_cond_wait(&site->changed, &site->lock);
    }
    pthread_mutex_unlock(&site->lock);
    return atomic_load(&site->lost) ? fail_lost(site) : CT_OK;
}

static const struct ct_site_calls calls = {
    .share = share,
    .deal = deal,
    .gather = gather,
    .sum_begin = sum_begin,
    .sum_ready = sum_ready,
    .sum_end = sum_end,
    .check = check,
};

/* What ranks tell of themselves at the start. */
struct card {
    int pid, machine; /* machine: the lowest rank on it */
    cpu_set_t cores;
};

/* Who shares this rank's machine and cores. */
static bool meet(struct mpi_site *site) {
    struct card card = {.pid = (int)getpid(), .machine = (int)site->base.rank};
    struct card all[CT_LEAVES_MAX];
    MPI_Comm machine;
    CT_ASSERT(sched_getaffinity(0, sizeof card.cores, &card.cores) == 0);
    const bool met = well(site, MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED,
                                                    card.machine, MPI_INFO_NULL, &machine)) &&
                     well(site, MPI_Bcast(&card.machine, 1, MPI_INT, 0, machine)) &&
                     well(site, MPI_Comm_free(&machine)) &&
                     well(site, MPI_Allgather(&card, sizeof card, MPI_BYTE, all, sizeof card,
                                              MPI_BYTE, site->words));
    uint32_t near = 0;
    for (uint32_t rank = 0; met && rank < site->base.ranks; rank++) {
        cpu_set_t common;
        if (all[rank].machine != card.machine) {
            continue;
        }
        CPU_AND(&common, &card.cores, &all[rank].cores);
        near += CPU_COUNT(&common) > 0;
        /* Not from inside another container. */
        if (rank != site->base.rank && kill(all[rank].pid, 0) == 0) {
            site->watched[rank] = all[rank].pid;
        }
    }
    const uint32_t cores = (uint32_t)CPU_COUNT(&card.cores);
    site->base.threads = near <= 1 ? 0 : cores > near ? cores / near : 1;
    return met;
}

static bool open_comm(struct mpi_site *site, MPI_Comm *out) {
    return well(site, MPI_Comm_dup(MPI_COMM_WORLD, out)) &&
           well(site, MPI_Comm_set_errhandler(*out, MPI_ERRORS_RETURN));
}

static enum ct_err open_all(struct mpi_site *site, int granted) {
    const int ranks = (int)site->base.ranks;
    if (granted < MPI_THREAD_SERIALIZED) {
        return ct_fail(CT_ERR_UNSUPPORTED,
                       "this MPI lets only its first thread call it (level %d, %d is needed): use "
                       "one that is built with threads, as Debian's Open MPI is",
                       granted, MPI_THREAD_SERIALIZED);
    }
    if (ranks > CT_LEAVES_MAX || (ranks & (ranks - 1)) != 0) {
        return ct_fail(CT_ERR_CONFIG, "a site of %d ranks: start 1, 2, 4, 8 or 16", ranks);
    }
    if (!open_comm(site, &site->words) || !open_comm(site, &site->slices) ||
        !open_comm(site, &site->wholes) || !meet(site)) {
        return fail_lost(site);
    }
    const size_t room = PIECE_MAX + CT_LEAVES_MAX * SLICE_GRAIN;
    site->room = aligned_alloc(64, FLIGHTS * room * sizeof(float));
    if (site->room == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for the sums over ranks");
    }
    for (int i = 0; i < FLIGHTS; i++) {
        site->flights[i].room = site->room + (size_t)i * room;
    }
    return pthread_create(&site->mover, NULL, mover_main, site) == 0
               ? CT_OK
               : ct_fail(CT_ERR_MEMORY, "cannot start the thread that sums over ranks");
}

enum ct_err ct_site_open(int *argc, char ***argv, struct ct_site **out, bool *out_speaks) {
    int granted = 0, rank = 0, ranks = 1;
    *out_speaks = true;
    struct mpi_site *site = calloc(1, sizeof *site);
    if (site == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a site");
    }
    CT_ASSERT(pthread_mutex_init(&site->lock, NULL) == 0);
    CT_ASSERT(pthread_cond_init(&site->changed, NULL) == 0);
    if (MPI_Init_thread(argc, argv, MPI_THREAD_SERIALIZED, &granted) != MPI_SUCCESS) {
        free(site);
        return ct_fail(CT_ERR_UNSUPPORTED, "MPI does not start");
    }
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    *out_speaks = rank == 0;
    site->base = (struct ct_site){(uint32_t)rank, (uint32_t)ranks, 0, &calls};
    const enum ct_err err = open_all(site, granted);
    if (err != CT_OK) {
        free(site->room);
        free(site);
        MPI_Finalize();
        return err;
    }
    *out = &site->base;
    return CT_OK;
}

void ct_site_close(struct ct_site *base) {
    struct mpi_site *site = mpi(base);
    pthread_mutex_lock(&site->lock);
    site->stop = true;
    pthread_cond_broadcast(&site->changed);
    pthread_mutex_unlock(&site->lock);
    pthread_join(site->mover, NULL);
    /* MPI would wait for ranks that are gone. Its requests still point at the room. */
    if (atomic_load(&site->lost)) {
        return;
    }
    MPI_Comm_free(&site->words);
    MPI_Comm_free(&site->slices);
    MPI_Comm_free(&site->wholes);
    MPI_Finalize();
    pthread_cond_destroy(&site->changed);
    pthread_mutex_destroy(&site->lock);
    free(site->room);
    free(site);
}
