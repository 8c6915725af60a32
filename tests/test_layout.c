#include <cotrain/isa.h>
#include <cotrain/layout.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void gpt2_small_has_its_known_size(void **state) {
    (void)state;
    const struct ct_model_shape shape = {CT_ARCH_GPT2, 50257, 1024, 12, 12, 768};
    struct ct_layout layout;
    assert_int_equal(ct_layout_init(&layout, &shape), CT_OK);
    assert_int_equal(layout.parameters, 124439808);
    assert_int_equal(layout.tensor_count, 148);
    ct_layout_deinit(&layout);
}

static void tensors_stand_back_to_back_in_byte_order(void **state) {
    (void)state;
    const struct ct_model_shape shape = {CT_ARCH_GPT2, 17, 5, 12, 3, 6};
    struct ct_layout layout;
    assert_int_equal(ct_layout_init(&layout, &shape), CT_OK);
    size_t offset = 0;
    for (uint32_t i = 0; i < layout.tensor_count; i++) {
        const struct ct_tensor *tensor = &layout.tensors[i];
        assert_int_equal(tensor->offset, offset);
        offset += (size_t)tensor->rows * tensor->columns;
        if (i > 0) {
            assert_true(strcmp(layout.tensors[i - 1].name, tensor->name) < 0);
        }
        assert_ptr_equal(ct_layout_find(&layout, tensor->name), tensor);
    }
    assert_int_equal(offset, layout.parameters);
    assert_string_equal(layout.tensors[0].name, "transformer.h.0.attn.c_attn.bias");
    /* layer 10 comes before layer 2 */
    assert_true(ct_layout_find(&layout, "transformer.h.10.ln_1.bias") <
                ct_layout_find(&layout, "transformer.h.2.ln_1.bias"));
    const struct ct_tensor *fc = ct_layout_find(&layout, "transformer.h.3.mlp.c_fc.weight");
    assert_non_null(fc);
    assert_int_equal(fc->rows, 6);
    assert_int_equal(fc->columns, 24);
    assert_int_equal(fc->kind, CT_TENSOR_MATRIX);
    assert_int_equal(ct_layout_find(&layout, "transformer.wpe.weight")->kind, CT_TENSOR_EMBEDDING);
    assert_null(ct_layout_find(&layout, "transformer.h.12.ln_1.bias"));
    ct_layout_deinit(&layout);
}

static void wrong_shapes_are_refused(void **state) {
    (void)state;
    const struct ct_model_shape shapes[] = {
        {(enum ct_arch)9, 17, 5, 2, 3, 6},
        {CT_ARCH_GPT2, 0, 5, 2, 3, 6},
        {CT_ARCH_GPT2, 17, 0, 2, 3, 6},
        {CT_ARCH_GPT2, 17, 5, 0, 3, 6},
        {CT_ARCH_GPT2, 17, 5, 2, 0, 6},
        {CT_ARCH_GPT2, 17, 5, 2, 4, 6},
        {CT_ARCH_GPT2, CT_VOCAB_MAX + 1, 5, 2, 3, 6},
        {CT_ARCH_GPT2, 17, 5, CT_LAYERS_MAX, 1, CT_WIDTH_MAX},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct ct_layout layout;
        assert_int_equal(ct_layout_init(&layout, &shapes[i]), CT_ERR_CONFIG);
        assert_null(layout.tensors);
    }
}

static double deviation(const float *values, size_t count, double mean) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += ((double)values[i] - mean) * ((double)values[i] - mean);
    }
    return sqrt(sum / (double)count);
}

static void first_model_is_a_function_of_the_seed(void **state) {
    (void)state;
    const struct ct_model_shape shape = {CT_ARCH_GPT2, 256, 64, 2, 4, 64};
    struct ct_layout layout;
    assert_int_equal(ct_layout_init(&layout, &shape), CT_OK);
    float *theta = malloc(layout.parameters * sizeof *theta);
    float *again = malloc(layout.parameters * sizeof *again);
    assert_non_null(theta);
    assert_non_null(again);
    struct ct_hash seed = {{1, 2, 3, 4, 5, 6, 7, 8}};
    ct_layout_draw(&layout, &seed, theta);
    ct_layout_draw(&layout, &seed, again);
    assert_memory_equal(theta, again, layout.parameters * sizeof *theta);
    seed.bytes[0]++;
    ct_layout_draw(&layout, &seed, again);
    assert_memory_not_equal(theta, again, layout.parameters * sizeof *theta);

    const float *fc = theta + ct_layout_find(&layout, "transformer.h.1.mlp.c_fc.weight")->offset;
    assert_float_equal(deviation(fc, 64 * 256, 0.0), 0.02, 0.0004);
    const float *end = theta + ct_layout_find(&layout, "transformer.h.1.mlp.c_proj.weight")->offset;
    assert_float_equal(deviation(end, 64 * 256, 0.0), 0.01, 0.0002);
    const float *gain = theta + ct_layout_find(&layout, "transformer.ln_f.weight")->offset;
    const float *bias = theta + ct_layout_find(&layout, "transformer.h.0.ln_2.bias")->offset;
    for (int i = 0; i < 64; i++) {
        assert_true(gain[i] == 1.0f);
        assert_true(bias[i] == 0.0f);
    }
    /* Golden: the first values of the token embedding, as Python makes them from the header. */
    uint32_t bits[2];
    memcpy(bits, theta + ct_layout_find(&layout, "transformer.wte.weight")->offset, sizeof bits);
    assert_int_equal(bits[0], 0x3c9e8fc0u);
    assert_int_equal(bits[1], 0xbc95c95cu);
    free(theta);
    free(again);
    ct_layout_deinit(&layout);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_small_has_its_known_size),
        cmocka_unit_test(tensors_stand_back_to_back_in_byte_order),
        cmocka_unit_test(wrong_shapes_are_refused),
        cmocka_unit_test(first_model_is_a_function_of_the_seed),
    };
    if (ct_isa_start() != CT_OK) {
        fprintf(stderr, "%s\n", ct_err_detail());
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
