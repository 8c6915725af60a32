/* The kernels' side of profile.h. */
#ifndef COTRAIN_KERNELS_PROFILE_RUN_H
#define COTRAIN_KERNELS_PROFILE_RUN_H

#include "ops.h"

/* What `run` does, counted while the profile is on: each hand's own time, without that of the
 * epilogue, which is another operation done on the way. */
void ct_profile_run(ct_matmul_fn *run, const struct ct_matmul *job, struct ct_hand hand,
                    struct ct_room room);

#endif
