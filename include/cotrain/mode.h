/* E1: the floating-point mode of exact arithmetic (round to nearest even, subnormals flushed and
 * read as zero), set inside every compute job and every parallel region, never globally. */
#ifndef COTRAIN_MODE_H
#define COTRAIN_MODE_H

#include <stdint.h>

struct ct_mode {
    uint32_t saved;
};

/* Compilers know nothing of modes: an operation between enter and leave may be moved out unless its
 * operands come from memory, and its result goes to memory, that these calls might touch. So what
 * is computed stands in functions of other files, or behind function pointers. */

/* Saves the thread's mode and sets E1. Each thread of a parallel region calls it for itself. */
struct ct_mode ct_mode_enter(void);

/* Asserts that E1 still holds (nobody changed the mode in between) and restores the saved mode. */
void ct_mode_leave(struct ct_mode mode);

#endif
