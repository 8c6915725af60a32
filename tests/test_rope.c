#include "kernels/rope.h"

#include <cotrain/limits.h>
#include <cotrain/mode.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Half a unit in the last place and what the angle's own rounding adds. */
static void table_is_cosine_and_sine_of_the_angles(void **state) {
    (void)state;
    const struct {
        size_t positions, half;
        float theta;
    } cases[] = {{512, 4, 10000.0f},
                 {CT_CONTEXT_MAX, 3, 500000.0f},
                 {33, 32, 1.0f},
                 {2048, 64, CT_ROPE_THETA_MAX}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        const size_t positions = cases[c].positions, half = cases[c].half;
        float *cosine = malloc(positions * half * sizeof(float));
        float *sine = malloc(positions * half * sizeof(float));
        assert_true(cosine != NULL && sine != NULL);
        const struct ct_mode mode = ct_mode_enter();
        ct_rope_table(cosine, sine, positions, half, cases[c].theta);
        ct_mode_leave(mode);
        for (size_t i = 0; i < positions * half; i++) {
            const double frequency =
                pow((double)cases[c].theta, -(double)(i % half) / (double)half);
            const double angle = (double)(i / half) * frequency;
            assert_true(fabs((double)cosine[i] - cos(angle)) <= 0x1.01p-25);
            assert_true(fabs((double)sine[i] - sin(angle)) <= 0x1.01p-25);
        }
        free(cosine);
        free(sine);
    }
}

static void first_position_stands_still(void **state) {
    (void)state;
    float cosine[8], sine[8];
    ct_rope_table(cosine, sine, 1, 8, 10000.0f);
    for (int i = 0; i < 8; i++) {
        assert_true(cosine[i] == 1.0f && sine[i] == 0.0f && !signbit(sine[i]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_is_cosine_and_sine_of_the_angles),
        cmocka_unit_test(first_position_stands_still),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
