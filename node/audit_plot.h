/* Plots of a report as inline SVG, coloured by the page's style sheet (classes axis, grid, line,
 * s0 … s8). No scripts. */
#ifndef NODE_AUDIT_PLOT_H
#define NODE_AUDIT_PLOT_H

#include "audit.h"

#include <stdio.h>

/* Nodes with a colour of their own; the others share one. */
#define CT_PLOT_SERIES 8u

/* Mean loss over rounds. Nothing, if no round merged anything. */
void ct_plot_loss(FILE *out, const struct ct_audit_report *report);
/* Merged tokens over rounds as stacked columns. order[]: indices of nodes, the largest first; the
 * first CT_PLOT_SERIES have colours. */
void ct_plot_tokens(FILE *out, const struct ct_audit_report *report, const uint32_t *order);

#endif
