#include "witnesses.h"

#include "witness_ask.h"

#include <cotrain/assert.h>
#include <cotrain/log.h>
#include <cotrain/tile_source.h>

#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TIMEOUT_MS     10000u
#define BACK_OFF_MIN_S 1u
#define BACK_OFF_MAX_S 60u
#define ANSWER_MAX     16384u /* lines of several keys, ML-DSA among them */

struct witness {
    struct ct_witnesses *all;
    const struct ct_policy_member *member;
    pthread_t thread;
    bool started, busy;
    uint64_t asked; /* the last note that it was asked about, by number */
    uint32_t back_off_s;
    uint64_t known;
    struct ct_witness_report report;
};

struct ct_witnesses {
    struct ct_policy policy;
    char ledger_dir[PATH_MAX];
    void (*changed)(void *user);
    void *user;
    pthread_mutex_t lock; /* over all below */
    pthread_cond_t turn;  /* a new note, an answer, or the end */
    bool stopping;
    uint64_t number;    /* of the current note; 0: none yet */
    struct ct_buf note; /* the current one, with its lines */
    struct ct_buf next; /* newer, waiting; or empty */
    bool quorum, fresh; /* fresh: lines that were not taken */
    uint32_t count;
    struct witness witnesses[CT_POLICY_MEMBERS_MAX];
};

static bool is_stopping(void *user) {
    struct ct_witnesses *all = user;
    return __atomic_load_n(&all->stopping, __ATOMIC_RELAXED);
}

/* The lock is held. The current note makes room when it has the quorum or nobody is at it. */
static void advance(struct ct_witnesses *all) {
    bool busy = false;
    for (uint32_t i = 0; i < all->count; i++) {
        const struct witness *witness = &all->witnesses[i];
        busy |= witness->busy && witness->asked == all->number;
        /* One that is free has yet to be asked, unless it was away a moment ago. */
        busy |= !witness->busy && witness->asked < all->number && witness->back_off_s == 0;
    }
    if (all->next.length > 0 && (all->number == 0 || all->quorum || !busy)) {
        struct ct_buf former = all->note;
        all->note = all->next;
        all->next = former;
        ct_buf_clear(&all->next);
        all->number++;
        all->quorum = false;
        all->fresh = false;
        pthread_cond_broadcast(&all->turn);
    }
}

/* Takes what the witness said about note `number`; the lock is held. */
static void take_answer(struct witness *witness, uint64_t number, enum ct_err err,
                        struct ct_bytes lines) {
    struct ct_witnesses *all = witness->all;
    struct ct_witness_report *report = &witness->report;
    enum ct_witness_state before = report->state;
    report->size = witness->known;
    report->state = err == CT_OK           ? CT_WITNESS_COSIGNED
                    : err == CT_ERR_RULE   ? CT_WITNESS_AHEAD
                    : err == CT_ERR_DIGEST ? CT_WITNESS_FORKED
                                           : CT_WITNESS_AWAY;
    snprintf(report->detail, sizeof report->detail, "%s", err == CT_OK ? "" : ct_err_detail());
    if (err == CT_OK) {
        witness->back_off_s = 0;
        report->cosigned = witness->known;
        if (number == all->number &&
            ct_cosignature_take(lines, witness->member->key_name, &witness->member->key,
                                &all->note) == CT_OK) {
            all->fresh = true;
            all->quorum = ct_policy_check(&all->policy, ct_buf_bytes(&all->note), NULL) == CT_OK;
        }
    } else {
        witness->back_off_s = witness->back_off_s == 0 ? BACK_OFF_MIN_S : 2 * witness->back_off_s;
        witness->back_off_s =
            witness->back_off_s > BACK_OFF_MAX_S ? BACK_OFF_MAX_S : witness->back_off_s;
    }
    if (report->state != before && err != CT_ERR_STATE) {
        ct_log(err == CT_OK                       ? CT_LOG_INFO
               : report->state == CT_WITNESS_AWAY ? CT_LOG_WARN
                                                  : CT_LOG_ERROR,
               "witness", "%s: %s", report->name, err == CT_OK ? "cosigns" : report->detail);
    }
}

static enum ct_err ask(struct witness *witness, struct ct_exchange *exchange, struct ct_bytes note,
                       struct ct_buf *out) {
    struct ct_checkpoint checkpoint;
    CT_TRY(ct_checkpoint_parse(note, &checkpoint));
    struct ct_tile_source *source = malloc(sizeof *source);
    if (source == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a proof");
    }
    ct_tile_source_init(source, checkpoint.size, ct_tile_read_dir, witness->all->ledger_dir);
    enum ct_err err = ct_witness_ask(exchange, witness->member, note, checkpoint.size,
                                     ct_tile_source_hash, source, &witness->known, out);
    ct_tile_source_deinit(source);
    free(source);
    return err;
}

/* The lock is held. Waits for a note that this witness was not asked about; false at the end. One
 * that was away is left in peace for a while. */
static bool wait_turn(struct witness *witness) {
    struct ct_witnesses *all = witness->all;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)witness->back_off_s;
    bool due = witness->back_off_s == 0;
    while (!all->stopping && (!due || witness->asked == all->number)) {
        if (due) {
            pthread_cond_wait(&all->turn, &all->lock);
        } else {
            due = pthread_cond_timedwait(&all->turn, &all->lock, &until) != 0;
        }
    }
    return !all->stopping;
}

static void *run(void *user) {
    struct witness *witness = user;
    struct ct_witnesses *all = witness->all;
    struct ct_exchange *exchange = NULL;
    struct ct_buf note, answer;
    ct_buf_init(&note, CT_CHECKPOINT_BYTES_MAX);
    ct_buf_init(&answer, ANSWER_MAX);
    enum ct_err err = ct_exchange_open(TIMEOUT_MS, is_stopping, all, &exchange);
    pthread_mutex_lock(&all->lock);
    while (err == CT_OK && wait_turn(witness)) {
        uint64_t number = all->number;
        witness->asked = number;
        witness->busy = true;
        ct_buf_clear(&note);
        enum ct_err asked = ct_buf_append(&note, all->note.data, all->note.length);
        pthread_mutex_unlock(&all->lock);
        if (asked == CT_OK) {
            asked = ask(witness, exchange, ct_buf_bytes(&note), &answer);
        }
        pthread_mutex_lock(&all->lock);
        witness->busy = false;
        take_answer(witness, number, asked, ct_buf_bytes(&answer));
        advance(all);
        pthread_cond_broadcast(&all->turn);
        pthread_mutex_unlock(&all->lock);
        all->changed(all->user);
        pthread_mutex_lock(&all->lock);
    }
    pthread_mutex_unlock(&all->lock);
    ct_exchange_close(exchange);
    ct_buf_deinit(&answer);
    ct_buf_deinit(&note);
    return NULL;
}

static void init_turn(struct ct_witnesses *all) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&all->turn, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&all->lock, NULL);
}

enum ct_err ct_witnesses_open(const struct ct_policy *policy, const char *ledger_dir,
                              void (*changed)(void *user), void *user, struct ct_witnesses **out) {
    struct ct_witnesses *all = calloc(1, sizeof *all);
    if (all == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for the witnesses");
    }
    all->policy = *policy;
    snprintf(all->ledger_dir, sizeof all->ledger_dir, "%s", ledger_dir);
    all->changed = changed;
    all->user = user;
    ct_buf_init(&all->note, CT_CHECKPOINT_BYTES_MAX);
    ct_buf_init(&all->next, CT_CHECKPOINT_BYTES_MAX);
    init_turn(all);
    for (uint32_t i = 0; i < policy->member_count; i++) {
        if (policy->members[i].is_group) {
            continue;
        }
        struct witness *witness = &all->witnesses[all->count];
        witness->all = all;
        witness->member = &all->policy.members[i];
        snprintf(witness->report.name, sizeof witness->report.name, "%s", policy->members[i].name);
        if (pthread_create(&witness->thread, NULL, run, witness) != 0) {
            ct_witnesses_close(all);
            return ct_fail(CT_ERR_MEMORY, "no thread for the witness %s", policy->members[i].name);
        }
        witness->started = true;
        pthread_mutex_lock(&all->lock);
        all->count++;
        pthread_mutex_unlock(&all->lock);
    }
    *out = all;
    return CT_OK;
}

enum ct_err ct_witnesses_overrule(struct ct_witnesses *all, const char *vkey) {
    for (uint32_t i = 0; i < all->count; i++) {
        const struct ct_policy_member *member = all->witnesses[i].member;
        char own[CT_VKEY_BYTES_MAX];
        ct_cosigner_format(member->key_name, &member->key, own);
        if (strcmp(own, vkey) == 0) {
            pthread_mutex_lock(&all->lock);
            all->witnesses[i].report.overruled = true;
            pthread_mutex_unlock(&all->lock);
            return CT_OK;
        }
    }
    return ct_fail(CT_ERR_CONFIG, "the run has no witness with the verifier key %.200s", vkey);
}

void ct_witnesses_close(struct ct_witnesses *all) {
    if (all == NULL) {
        return;
    }
    pthread_mutex_lock(&all->lock);
    __atomic_store_n(&all->stopping, true, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&all->turn);
    pthread_mutex_unlock(&all->lock);
    for (uint32_t i = 0; i < all->count; i++) {
        if (all->witnesses[i].started) {
            pthread_join(all->witnesses[i].thread, NULL);
        }
    }
    pthread_cond_destroy(&all->turn);
    pthread_mutex_destroy(&all->lock);
    ct_buf_deinit(&all->note);
    ct_buf_deinit(&all->next);
    free(all);
}

void ct_witnesses_offer(struct ct_witnesses *all, struct ct_bytes note) {
    pthread_mutex_lock(&all->lock);
    ct_buf_clear(&all->next);
    if (ct_buf_append(&all->next, note.data, note.length) != CT_OK) {
        ct_buf_clear(&all->next);
    }
    advance(all);
    pthread_mutex_unlock(&all->lock);
}

void ct_witnesses_settle(struct ct_witnesses *all, uint32_t timeout_ms) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + (uint64_t)(timeout_ms % 1000) * 1000000u;
    until.tv_sec += (time_t)(timeout_ms / 1000 + ns / 1000000000u);
    until.tv_nsec = (long)(ns % 1000000000u);
    pthread_mutex_lock(&all->lock);
    for (bool out_of_time = false; !out_of_time;) {
        bool settled = true;
        for (uint32_t i = 0; i < all->count; i++) {
            settled &= all->witnesses[i].report.state != CT_WITNESS_UNASKED;
        }
        if (settled) {
            break;
        }
        out_of_time = pthread_cond_timedwait(&all->turn, &all->lock, &until) != 0;
    }
    pthread_mutex_unlock(&all->lock);
}

bool ct_witnesses_take(struct ct_witnesses *all, struct ct_buf *out, bool *out_quorum) {
    pthread_mutex_lock(&all->lock);
    bool fresh = all->fresh;
    if (fresh) {
        ct_buf_clear(out);
        fresh = ct_buf_append(out, all->note.data, all->note.length) == CT_OK;
        *out_quorum = all->quorum;
        all->fresh = false;
    }
    pthread_mutex_unlock(&all->lock);
    return fresh;
}

uint32_t ct_witnesses_count(const struct ct_witnesses *all) {
    return all->count;
}

void ct_witnesses_report(struct ct_witnesses *all, uint32_t index, struct ct_witness_report *out) {
    CT_ASSERT(index < all->count);
    pthread_mutex_lock(&all->lock);
    *out = all->witnesses[index].report;
    pthread_mutex_unlock(&all->lock);
}
