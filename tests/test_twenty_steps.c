#include <cotrain/isa.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "every_isa.h"
#include "twenty_steps.h"

static void every_model_has_its_golden_bits(void **state) {
    (void)state;
    for (size_t i = 0; i < TWENTY_STEPS_MODELS; i++) {
        const struct twenty_steps_model *model = &twenty_steps_models[i];
        /* Under a forced overlay once is enough. */
        for (uint32_t run = getenv("COTRAIN_ISA") != NULL ? 3 : 0; run < 4; run++) {
            const uint32_t threads = run + 1, micro_batch = run % 2 + 1;
            uint64_t hash = 0;
            assert_int_equal(twenty_steps_engine(model, threads, micro_batch, &hash), CT_OK);
            if (hash != model->hash) {
                fail_msg("%s, %s, %u threads, micro-batch %u: %016llx", model->name,
                         ct_numerics_name(model->numerics), threads, micro_batch,
                         (unsigned long long)hash);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_model_has_its_golden_bits),
    };
    if (ct_isa_start() != CT_OK) {
        fprintf(stderr, "%s\n", ct_err_detail());
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL) + run_under_every_isa();
}
