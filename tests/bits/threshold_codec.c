#include "bits.h"

#include "shapes.h"
#include "threshold.h"

#include <cotrain/codec.h>
#include <cotrain/optimizer.h>

#include <stdio.h>
#include <stdlib.h>

/* Learning rates down to the flush threshold: narrowing outside the table of operations. */
static void rates(void) {
    float table[512];
    ct_rate_table(table, 512, 64, 0x1.3p-124, 0x1p-128);
    bits_print("rate table", table, sizeof table);
}

/* An update of tiny differences: the codec's own arithmetic. */
static void codec(void) {
    const struct ct_model_shape shape = GPT2_SHAPE(61, 18, 1, 1, 36);
    struct ct_layout layout;
    struct ct_chunks chunks;
    if (ct_layout_init(&layout, &shape) != CT_OK || ct_chunks_init(&chunks, &layout) != CT_OK) {
        fprintf(stderr, "%s\n", ct_err_detail());
        exit(1);
    }
    const size_t n = layout.parameters;
    float *values = calloc(3 * n, sizeof *values);
    uint8_t *update = malloc(ct_update_bytes_max(&chunks));
    if (values == NULL || update == NULL) {
        exit(1);
    }
    uint64_t random = 31;
    for (size_t i = 0; i < n; i++) {
        values[i] = threshold_scaled(&random, (int)(i % 20) - 126);
        values[n + i] = threshold_scaled(&random, (int)(i % 13) - 126);
        values[2 * n + i] = threshold_scaled(&random, (int)(i % 7) - 126);
    }
    size_t length;
    ct_update_encode(&chunks, &(struct ct_update_header){.steps = 1}, values, values + n,
                     values + 2 * n, update, &length);
    bits_print("codec update", update, length);
    bits_print("codec residual", values + 2 * n, n * sizeof *values);
    free(values);
    free(update);
    ct_chunks_deinit(&chunks);
    ct_layout_deinit(&layout);
}

void bits_threshold_codec(void) {
    rates();
    codec();
}
