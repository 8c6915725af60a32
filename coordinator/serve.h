/* The coordinator at work: the rim that carries out what round.c asks for and answers what nodes
 * send. All on the loop's thread; jobs get constant inputs and hand back one result.
 *
 *   serve.c     opening, closing, timers, links
 *   intake.c    frames of nodes, judged and answered
 *   payload.c   uploads: checked, moved into the store, received or refused
 *   turn.c      the actions of the round
 *   report.c    what people see
 *
 * V1  While the merge job runs no entry is appended: the job reads the fold.
 * V2  A contribution with a job is not touched but by that job's end.
 * V3  On a full disk nothing is acknowledged and nothing new begins; what could not be written is
 *     tried again every second (ct_serve_full), until there is room. */
#ifndef COORDINATOR_SERVE_H
#define COORDINATOR_SERVE_H

#include "journal.h"
#include "refusals.h"
#include "roster.h"
#include "round.h"
#include "run.h"
#include "web.h"
#include "witnesses.h"

#include <cotrain/link.h>

#define CT_SERVE_MIRRORS_MAX 8u /* as many as a welcome has */

struct ct_serve_options {
    const char *dir;
    const char *listen_host;
    uint16_t listen_port, http_port; /* 0: the kept one, else any */
    bool exit_when_done, json;
    const char
        *mirrors[CT_SERVE_MIRRORS_MAX]; /* base URLs; told to nodes, and asked at the start */
    uint32_t mirror_count;
    /* Verifier keys of witnesses whose word against this ledger is not to stop it. */
    const char *overruled[CT_POLICY_MEMBERS_MAX];
    uint32_t overruled_count;
};

struct ct_merge_job {
    uv_work_t work;
    bool running, done;
    float *theta; /* the next model; owned */
    bool has_snapshot;
    struct ct_hash model;
    struct ct_blob_ref merged;
    enum ct_err err;
    char detail[512];
};

/* What the round cost and how fast it is, for people. */
struct ct_tally {
    uint64_t opened_ms;                          /* of the open round */
    uint64_t up_bytes, down_bytes;               /* totals when it opened */
    uint64_t closed_links_up, closed_links_down; /* of links that are gone */
    double round_ms;                             /* smoothed length of a round; 0: not known */
    double tokens_per_s, loss;                   /* of the last closed round */
    uint32_t merged, commits;
    uint64_t payload_bytes;
};

struct ct_serve {
    struct ct_serve_options options;
    uv_loop_t loop;
    uv_timer_t tick, deadline;
    uv_signal_t interrupt, terminate;
    struct ct_run run;
    struct ct_ports ports;
    struct ct_journal journal;
    struct ct_roster roster;
    struct ct_round round;
    struct ct_web *web;
    struct ct_witnesses *witnesses; /* NULL: the manifest names none */
    uv_async_t cosigned;            /* a witness has answered */
    uint64_t offered;               /* size of the checkpoint that they were offered last */
    struct ct_link_server *server;
    struct ct_merge_job merge;
    struct ct_tally tally;
    struct ct_refusals refusals;
    uint64_t closed_index; /* of the open round's commits_closed; 0: not written */
    uint64_t finished_ms;  /* 0: not yet */
    uint32_t jobs;         /* upload jobs that run */
    /* Of a restored run: so many nodes more are to say what they hold before anything is appended,
     * since what was published last may be in no other place. */
    uint32_t to_hear;
    bool full; /* the disk had no room: V3 */
    bool stopping, closed;
    enum ct_err err;
    char detail[512];
};

/* Serves until it is told to stop, or the run is done (exit_when_done). */
CT_MUST_CHECK enum ct_err ct_serve_run(const struct ct_serve_options *options);

/* What this node holds is in the log. */
void ct_serve_heard(struct ct_serve *serve, struct ct_seat *seat);
/* CLOCK_BOOTTIME: a machine that slept knows it. */
uint64_t ct_serve_now_ms(void);
/* Stops the coordinator with an error. */
void ct_serve_fail(struct ct_serve *serve, enum ct_err err, const char *detail);
/* Something found no room on the disk and changed nothing: waits for room. */
void ct_serve_full(struct ct_serve *serve, const char *detail);
/* The same by the code: CT_ERR_FULL waits, all else stops. */
void ct_serve_trouble(struct ct_serve *serve, enum ct_err err, const char *detail);
/* Does what is due, whatever just happened. */
void ct_serve_advance(struct ct_serve *serve);

/* intake.c */
void ct_intake_frame(struct ct_serve *serve, struct ct_member *member, struct ct_bytes frame);
void ct_intake_send(struct ct_member *member, const struct ct_wire *wire);
void ct_intake_notice(struct ct_serve *serve, struct ct_member *member);
/* Receipts of published commits that are due. The journal's job does not run. */
void ct_intake_receipts(struct ct_serve *serve);
void ct_intake_drop(struct ct_member *member, uint32_t code, bool final, const char *text);

/* payload.c */
void ct_payload_upload(struct ct_serve *serve, struct ct_member *member,
                       const struct ct_wire *wire);
/* Starts what jobs there are to start: files to check, good ones to store. */
void ct_payload_advance(struct ct_serve *serve);
/* After a restart: what lies in incoming and in the store. */
CT_MUST_CHECK enum ct_err ct_payload_resume(struct ct_serve *serve);
/* Answers the chunks for which there was no room, so that they are sent again. */
void ct_payload_ask_again(struct ct_serve *serve);

/* turn.c */
struct ct_round_facts ct_turn_facts(const struct ct_serve *serve);
/* CT_ERR_FULL: not done, to be asked for again. */
CT_MUST_CHECK enum ct_err ct_turn_do(struct ct_serve *serve, enum ct_round_action action);
/* Starts the merge again that found no room. */
CT_MUST_CHECK enum ct_err ct_turn_again(struct ct_serve *serve);

/* progress.c */
void ct_report_serving(struct ct_serve *serve);
void ct_report_round_opened(struct ct_serve *serve);
void ct_report_round_closed(struct ct_serve *serve);
void ct_report_finished(struct ct_serve *serve);
/* The disk is full, or (detail NULL) has room again. */
void ct_report_disk(struct ct_serve *serve, const char *detail);
/* Swaps the status page's object. */
void ct_report_show(struct ct_serve *serve);

#endif
