#include "bits.h"

#include "row_operations.h"

void bits_plain_rows(const struct ct_ops *ops) {
    fill();
    for (size_t op = 0; op < OPERATIONS; op++) {
        static struct result results[LENGTHS];
        for (size_t l = 0; l < LENGTHS; l++) {
            run_in_mode(operations[op].run, ops, lengths[l], &results[l]);
        }
        bits_print(operations[op].name, results, sizeof results);
    }
}
