/* Refusals in the log and as a number: anybody can cause them, so lines are limited to what a
 * person can read and a disk can take (protocol.md section 7). */
#ifndef COORDINATOR_REFUSALS_H
#define COORDINATOR_REFUSALS_H

#include <stdbool.h>
#include <stdint.h>

#define CT_REFUSALS_WINDOW_MS 10000u
#define CT_REFUSALS_LINES_MAX 100u /* in a window */

struct ct_refusals {
    uint64_t count; /* of all */
    uint64_t window_ms;
    uint32_t lines, unlogged; /* in the window */
};

/* Counts one and logs it, module "intake", unless the window is full; the next window says how many
 * were left out. True if it was logged. */
bool ct_refusals_log(struct ct_refusals *refusals, uint64_t now_ms, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
