#include "audit_plot.h"

#include <inttypes.h>
#include <math.h>

#define WIDTH   760.0
#define HEIGHT  260.0
#define LEFT    64.0
#define RIGHT   16.0
#define TOP     14.0
#define BOTTOM  40.0
#define COLUMNS 64u

/* A linear axis whose ticks are 1, 2 or 5 times a power of ten. */
struct axis {
    double least, most, step;
};

static struct axis make_axis(double least, double most, int ticks) {
    const double span = most > least ? most - least : 1.0;
    double step = 1.0;
    while (step > span / ticks) {
        step /= 10.0;
    }
    while (step * 10.0 <= span / ticks) {
        step *= 10.0;
    }
    step *= span / ticks > 5.0 * step ? 10.0 : span / ticks > 2.0 * step ? 5.0 : 2.0;
    return (struct axis){floor(least / step) * step, ceil(most / step) * step, step};
}

static double x_of(const struct ct_audit_report *report, double round) {
    const double rounds = report->rounds > 1 ? report->rounds : 2;
    return LEFT + (round - 1.0) / (rounds - 1.0) * (WIDTH - LEFT - RIGHT);
}

static double y_of(const struct axis *axis, double value) {
    const double span = axis->most > axis->least ? axis->most - axis->least : 1.0;
    return HEIGHT - BOTTOM - (value - axis->least) / span * (HEIGHT - TOP - BOTTOM);
}

static void open_svg(FILE *out, const char *title) {
    fprintf(out,
            "<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"%s\">"
            "<title>%s</title>\n",
            WIDTH, HEIGHT, title, title);
}

/* 12 300 000 as 12.3M */
static void print_number(FILE *out, double value) {
    static const char *const suffixes[] = {"", "k", "M", "G", "T", "P"};
    int at = 0;
    while (value >= 1000.0 && at < 5) {
        value /= 1000.0;
        at++;
    }
    fprintf(out, "%.4g%s", value, suffixes[at]);
}

static void draw_y(FILE *out, const struct axis *axis) {
    for (double value = axis->least; value <= axis->most + 0.5 * axis->step; value += axis->step) {
        const double y = y_of(axis, value);
        fprintf(out,
                "<line class=\"grid\" x1=\"%.0f\" x2=\"%.0f\" y1=\"%.1f\" y2=\"%.1f\"/>"
                "<text class=\"axis\" text-anchor=\"end\" x=\"%.0f\" y=\"%.1f\">",
                LEFT, WIDTH - RIGHT, y, y, LEFT - 8.0, y + 4.0);
        print_number(out, fabs(value) < 1e-9 ? 0.0 : value);
        fputs("</text>\n", out);
    }
}

static void draw_x(FILE *out, const struct ct_audit_report *report) {
    const struct axis axis = make_axis(0.0, report->rounds, 8);
    for (double round = 0.0; round <= (double)report->rounds; round += axis.step) {
        const double at = round < 1.0 ? 1.0 : round;
        if (at != floor(at)) {
            continue;
        }
        fprintf(out,
                "<text class=\"axis\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.0f\">%.0f</text>\n",
                x_of(report, at), HEIGHT - BOTTOM + 18.0, at);
    }
    fprintf(out, "<text class=\"axis\" text-anchor=\"end\" x=\"%.0f\" y=\"%.0f\">round</text>\n",
            WIDTH - RIGHT, HEIGHT - 6.0);
}

void ct_plot_loss(FILE *out, const struct ct_audit_report *report) {
    double least = 0.0, most = 0.0;
    bool any = false;
    for (uint32_t i = 0; i < report->bin_count; i++) {
        const struct ct_audit_bin *bin = &report->bins[i];
        if (bin->tokens > 0) {
            const double loss = bin->loss_tokens / (double)bin->tokens;
            least = !any || loss < least ? loss : least;
            most = !any || loss > most ? loss : most;
            any = true;
        }
    }
    if (!any || !isfinite(least) || !isfinite(most) || most > 1e9) {
        return;
    }
    const struct axis axis = make_axis(least, most, 5);
    open_svg(out, "Mean loss over rounds");
    draw_y(out, &axis);
    draw_x(out, report);
    fputs("<polyline class=\"line\" points=\"", out);
    for (uint32_t i = 0; i < report->bin_count; i++) {
        const struct ct_audit_bin *bin = &report->bins[i];
        if (bin->tokens > 0) {
            const double middle = (double)i * report->bin_rounds + 0.5 * (report->bin_rounds + 1.0);
            fprintf(out, "%.1f,%.1f ", x_of(report, middle),
                    y_of(&axis, bin->loss_tokens / (double)bin->tokens));
        }
    }
    fputs("\"/></svg>\n", out);
}

/* Tokens of a node, or of all when NULL, in the bins of one column. */
static uint64_t column_tokens(const struct ct_audit_report *report,
                              const struct ct_audit_node *node, uint32_t first, uint32_t count) {
    uint64_t tokens = 0;
    for (uint32_t i = first; i < first + count && i < report->bin_count; i++) {
        tokens += node != NULL ? node->bins[i] : report->bins[i].tokens;
    }
    return tokens;
}

static void draw_column(FILE *out, const struct ct_audit_report *report, const uint32_t *order,
                        const struct axis *axis, uint32_t first, uint32_t count) {
    const uint64_t all = column_tokens(report, NULL, first, count);
    const double begin = (double)first * report->bin_rounds;
    const double end = begin + (double)count * report->bin_rounds;
    const double width = (WIDTH - LEFT - RIGHT) / (report->rounds > 0 ? report->rounds : 1);
    uint64_t below = 0;
    for (uint32_t s = 0; s <= CT_PLOT_SERIES; s++) {
        uint64_t tokens = all - below;
        if (s < CT_PLOT_SERIES) {
            tokens = s < report->node_count
                         ? column_tokens(report, &report->nodes[order[s]], first, count)
                         : 0;
        }
        const double top = y_of(axis, (double)(below + tokens));
        const double height = y_of(axis, (double)below) - top;
        if (height > 0.0) {
            const double last = end < report->rounds ? end : report->rounds;
            fprintf(out,
                    "<rect class=\"s%u\" x=\"%.1f\" y=\"%.2f\" width=\"%.1f\" height=\"%.2f\"/>\n",
                    s, LEFT + begin * width, top, (last - begin) * width * 0.92, height);
        }
        below += tokens;
    }
}

void ct_plot_tokens(FILE *out, const struct ct_audit_report *report, const uint32_t *order) {
    const uint32_t count = (report->bin_count + COLUMNS - 1) / COLUMNS;
    uint64_t most = 0;
    for (uint32_t first = 0; count > 0 && first < report->bin_count; first += count) {
        const uint64_t tokens = column_tokens(report, NULL, first, count);
        most = tokens > most ? tokens : most;
    }
    if (most == 0) {
        return;
    }
    const struct axis axis = make_axis(0.0, (double)most, 5);
    open_svg(out, "Merged tokens over rounds, by node");
    draw_y(out, &axis);
    for (uint32_t first = 0; first < report->bin_count; first += count) {
        draw_column(out, report, order, &axis, first, count);
    }
    draw_x(out, report);
    fputs("</svg>\n", out);
}
