/* The compared training runs of the three_nodes bench. */
#ifndef TESTS_BENCH_THREE_NODES_RUN_H
#define TESTS_BENCH_THREE_NODES_RUN_H

#include <cotrain/types.h>

#define NODES        3u
#define STEPS        15u /* H */
#define BATCH        12u
#define CONTEXT      64u
#define ROUND_TOKENS ((uint64_t)NODES * STEPS * BATCH * CONTEXT)
#define POINTS       3u

enum method { PLAIN, SL1 };

struct run {
    enum method method;
    bool tuning;
    uint32_t seed;
    double rate;
    bool done;
    double loss[POINTS]; /* nats per byte on the validation or the test part */
    double seconds;
};

/* What all runs share. */
struct setting {
    uint32_t rounds, threads;
    uint32_t points[POINTS]; /* rounds at which the loss is taken, the last being `rounds` */
    const uint16_t *text;    /* bytes */
    uint64_t text_count;
};

/* Trains and judges: fills in loss, seconds and done. Ends the process when it cannot. */
void do_run(const struct setting *setting, struct run *run);

#endif
