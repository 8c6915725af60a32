#include "parallel.h"

#include "fork_join.h"

#include <cotrain/assert.h>

struct work {
    ct_range_fn *body;
    void *context;
    size_t count, grain, grains, parts;
};

/* The team may come out smaller than asked, so parts are dealt out, not taken by number. */
static void run_parts(void *context, size_t me, size_t all) {
    const struct work *work = context;
    for (size_t part = me; part < work->parts; part += all) {
        const size_t begin = work->grains * part / work->parts * work->grain;
        const size_t end = work->grains * (part + 1) / work->parts * work->grain;
        work->body(work->context, begin, end < work->count ? end : work->count);
    }
}

void ct_parallel(uint32_t threads, size_t count, size_t grain, ct_range_fn *body, void *context) {
    CT_ASSERT(grain > 0);
    const size_t grains = (count + grain - 1) / grain, wanted = ct_fork_width(threads);
    struct work work = {body, context, count, grain, grains, wanted < grains ? wanted : grains};
    ct_fork_join(work.parts, run_parts, &work);
}
