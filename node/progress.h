/* What a node tells its volunteer: lines on standard output (or one JSON object per line), and
 * DIR/status.json for `cotrain status`. On the loop's thread. */
#ifndef NODE_PROGRESS_H
#define NODE_PROGRESS_H

#include "compute.h"
#include "sync.h"

struct ct_progress {
    char status_path[4096];
    bool json, terminal;
    bool line_open; /* a line that is overwritten stands on the terminal */
    const char *state;
    struct ct_hash run_id;
    struct ct_run_facts facts;
    struct ct_view view;
    float loss, tokens_per_s;
    char computed[128]; /* said together with the receipt */
    uint32_t receipts;
    uint64_t bytes_up, bytes_down; /* set by the owner before a call */
    uint64_t started_ms, round_ms; /* when this process saw its first round and this one */
    uint32_t first_round, closed_round;
};

CT_MUST_CHECK enum ct_err ct_progress_init(struct ct_progress *progress, const char *dir,
                                           const struct ct_hash *run_id, bool json);

void ct_progress_say(struct ct_progress *progress, const char *text);
/* "connecting", "following", "waiting", "computing", "uploading", "finished", "stopped". */
void ct_progress_state(struct ct_progress *progress, const char *state);
void ct_progress_view(struct ct_progress *progress, const struct ct_run_facts *facts,
                      const struct ct_view *view, uint64_t now_ms);
/* Shown on a terminal, as a step is. */
void ct_progress_assigned(struct ct_progress *progress, const struct ct_view *view);
void ct_progress_step(struct ct_progress *progress, const struct ct_compute_progress *step);
void ct_progress_computed(struct ct_progress *progress, const struct ct_compute_result *result);
void ct_progress_receipt(struct ct_progress *progress, uint32_t round, const char *path);

/* "1.2 MB", into 32 bytes. */
void ct_progress_bytes(uint64_t bytes, char out[32]);

#endif
