#include "parallel.h"

#include <cotrain/assert.h>
#include <cotrain/mode.h>

#include <omp.h>

size_t ct_parallel_threads(uint32_t threads) {
    if (omp_in_parallel()) {
        return 1;
    }
    return threads != 0 ? threads : (size_t)omp_get_max_threads();
}

void ct_parallel(uint32_t threads, size_t count, size_t grain, ct_range_fn *body, void *context) {
    CT_ASSERT(grain > 0);
    const size_t grains = (count + grain - 1) / grain;
    const size_t wanted = ct_parallel_threads(threads);
    const size_t parts = wanted < grains ? wanted : grains;
    if (parts <= 1) {
        const struct ct_mode mode = ct_mode_enter();
        if (count > 0) {
            body(context, 0, count);
        }
        ct_mode_leave(mode);
        return;
    }
    /* The team may come out smaller than asked, so parts are dealt out, not taken by number. */
#pragma omp parallel num_threads((int)parts)
    {
        const struct ct_mode mode = ct_mode_enter();
#pragma omp for schedule(static, 1)
        for (size_t part = 0; part < parts; part++) {
            const size_t begin = grains * part / parts * grain;
            const size_t end = grains * (part + 1) / parts * grain;
            body(context, begin, end < count ? end : count);
        }
        ct_mode_leave(mode);
    }
}
