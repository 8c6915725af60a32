/* What the choice of overlays (isa.c) asks of a processor family: cpu_x86.c, cpu_arm.c. There too
 * is ct_isa_supported. */
#ifndef COTRAIN_KERNELS_CPU_H
#define COTRAIN_KERNELS_CPU_H

#include "ops.h"

enum { CT_CPU_NAME = 49 };

/* The CPU's own name for itself. */
void ct_cpu_name(char name[CT_CPU_NAME]);

/* What the definitions need and this CPU may lack, as a sentence. */
extern const char *const ct_cpu_required;

/* Puts an overlay that this CPU supports over the definitions in `ops`. */
void ct_cpu_overlay(struct ct_ops *ops, enum ct_isa isa);

/* Puts into `ops`, which holds the overlay of `isa`, kernels of the one below it where they are the
 * faster on this very CPU: they race, for a fraction of a millisecond. */
void ct_cpu_race(struct ct_ops *ops, enum ct_isa isa);

/* x86 only: whether one of two loops as those of peak.h does more operations a second. */
bool ct_cpu_outruns(double (*one)(uint64_t rounds, float *sink),
                    double (*other)(uint64_t rounds, float *sink));

#endif
