#include "kernels/binary64.h"
#include "kernels/ops.h"

#include <cotrain/isa.h>
#include <cotrain/layout.h>
#include <cotrain/mode.h>
#include <cotrain/philox.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shapes.h"

static void gpt2_small_has_its_known_size(void **state) {
    (void)state;
    const struct ct_model_shape shape = GPT2_SHAPE(50257, 1024, 12, 12, 768);
    struct ct_layout layout;
    assert_int_equal(ct_layout_init(&layout, &shape), CT_OK);
    assert_int_equal(layout.parameters, 124439808);
    assert_int_equal(layout.tensor_count, 148);
    ct_layout_deinit(&layout);
}

static void tensors_stand_back_to_back_in_byte_order(void **state) {
    (void)state;
    const struct ct_model_shape shape = GPT2_SHAPE(17, 5, 12, 3, 6);
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
        {.arch = (enum ct_arch)9, .vocab = 17, .context = 5, .layers = 2, .heads = 3, .width = 6},
        GPT2_SHAPE(0, 5, 2, 3, 6),
        GPT2_SHAPE(17, 0, 2, 3, 6),
        GPT2_SHAPE(17, 5, 0, 3, 6),
        GPT2_SHAPE(17, 5, 2, 0, 6),
        GPT2_SHAPE(17, 5, 2, 4, 6),
        GPT2_SHAPE(CT_VOCAB_MAX + 1, 5, 2, 3, 6),
        GPT2_SHAPE(17, 5, CT_LAYERS_MAX, 1, CT_WIDTH_MAX),
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct ct_layout layout;
        assert_int_equal(ct_layout_init(&layout, &shapes[i]), CT_ERR_CONFIG);
        assert_null(layout.tensors);
    }
}

static void llamas_have_their_known_sizes(void **state) {
    (void)state;
    const struct {
        struct ct_model_shape shape;
        uint64_t parameters;
    } known[] = {
        {LLAMA_SHAPE(512, 512, 5, 8, 4, 64, 172, true), 260032},
        {LLAMA_SHAPE(32000, 2048, 22, 32, 4, 2048, 5632, false), 1100048384},   /* TinyLlama */
        {LLAMA_SHAPE(32000, 4096, 32, 32, 32, 4096, 11008, false), 6738415616}, /* Llama 2 7B */
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        struct ct_layout layout;
        assert_int_equal(ct_layout_init(&layout, &known[i].shape), CT_OK);
        assert_true(layout.parameters == known[i].parameters);
        ct_layout_deinit(&layout);
    }
}

static void expect_tensor(const struct ct_layout *layout, const char *name,
                          enum ct_tensor_kind kind, uint32_t rows, uint32_t columns) {
    const struct ct_tensor *tensor = ct_layout_find(layout, name);
    assert_non_null(tensor);
    assert_int_equal(tensor->kind, kind);
    assert_int_equal(tensor->rows, rows);
    assert_int_equal(tensor->columns, columns);
}

static void llama_has_hugging_faces_names_and_orientation(void **state) {
    (void)state;
    struct ct_model_shape shape = LLAMA_SHAPE(17, 5, 12, 6, 2, 24, 40, false);
    struct ct_layout layout;
    assert_int_equal(ct_layout_init(&layout, &shape), CT_OK);
    assert_int_equal(layout.tensor_count, 12 * 9 + 3);
    expect_tensor(&layout, "model.embed_tokens.weight", CT_TENSOR_EMBEDDING, 17, 24);
    expect_tensor(&layout, "lm_head.weight", CT_TENSOR_EMBEDDING, 17, 24);
    expect_tensor(&layout, "model.norm.weight", CT_TENSOR_VECTOR, 1, 24);
    expect_tensor(&layout, "model.layers.0.input_layernorm.weight", CT_TENSOR_VECTOR, 1, 24);
    expect_tensor(&layout, "model.layers.11.post_attention_layernorm.weight", CT_TENSOR_VECTOR, 1,
                  24);
    expect_tensor(&layout, "model.layers.3.self_attn.q_proj.weight", CT_TENSOR_MATRIX, 24, 24);
    expect_tensor(&layout, "model.layers.3.self_attn.k_proj.weight", CT_TENSOR_MATRIX, 8, 24);
    expect_tensor(&layout, "model.layers.3.self_attn.v_proj.weight", CT_TENSOR_MATRIX, 8, 24);
    expect_tensor(&layout, "model.layers.3.self_attn.o_proj.weight", CT_TENSOR_MATRIX, 24, 24);
    expect_tensor(&layout, "model.layers.3.mlp.gate_proj.weight", CT_TENSOR_MATRIX, 40, 24);
    expect_tensor(&layout, "model.layers.3.mlp.up_proj.weight", CT_TENSOR_MATRIX, 40, 24);
    expect_tensor(&layout, "model.layers.3.mlp.down_proj.weight", CT_TENSOR_MATRIX, 24, 40);
    assert_string_equal(layout.tensors[0].name, "lm_head.weight");
    ct_layout_deinit(&layout);
    shape.tied = true;
    assert_int_equal(ct_layout_init(&layout, &shape), CT_OK);
    assert_null(ct_layout_find(&layout, "lm_head.weight"));
    ct_layout_deinit(&layout);
}

static void shapes_are_settled_or_left_alone(void **state) {
    (void)state;
    struct ct_model_shape gpt2 = GPT2_SHAPE(17, 5, 2, 3, 6);
    assert_int_equal(ct_shape_settle(&gpt2), CT_OK);
    assert_int_equal(gpt2.kv_heads, 3);
    assert_int_equal(gpt2.hidden, 24);
    assert_true(gpt2.tied && gpt2.norm_epsilon == 1e-5f && gpt2.rope_theta == 0.0f);
    assert_int_equal(ct_shape_settle(&gpt2), CT_OK); /* again: no change */
    const struct ct_model_shape good = LLAMA_SHAPE(17, 5, 2, 6, 2, 24, 40, false);
    struct ct_model_shape llama = good;
    llama.kv_heads = 0;
    assert_int_equal(ct_shape_settle(&llama), CT_OK);
    assert_int_equal(llama.kv_heads, 6);
    assert_true(!llama.tied && llama.norm_epsilon == 1e-5f && llama.rope_theta == 10000.0f);
    struct ct_model_shape bad[9];
    for (size_t i = 0; i < 9; i++) {
        bad[i] = good;
    }
    bad[0].kv_heads = 4;  /* no divisor of 6 */
    bad[1].kv_heads = 12; /* more than heads */
    bad[2].heads = 8;     /* heads of width 3 */
    bad[2].kv_heads = 2;
    bad[3].hidden = 0;
    bad[4].hidden = CT_HIDDEN_MAX + 1;
    bad[5].norm_epsilon = -1e-5f;
    bad[6].norm_epsilon = (float)NAN;
    bad[7].rope_theta = 0.5f;
    bad[8].rope_theta = (float)INFINITY;
    for (size_t i = 0; i < 9; i++) {
        const struct ct_model_shape before = bad[i];
        assert_int_equal(ct_shape_settle(&bad[i]), CT_ERR_CONFIG);
        assert_memory_equal(&before, &bad[i], sizeof before);
    }
    gpt2.kv_heads = 1;
    assert_int_equal(ct_shape_settle(&gpt2), CT_ERR_CONFIG);
    enum ct_arch arch;
    assert_int_equal(ct_arch_parse("llama", &arch), CT_OK);
    assert_int_equal(arch, CT_ARCH_LLAMA);
    assert_string_equal(ct_arch_name(arch), "llama");
    assert_int_equal(ct_arch_parse("llama2", &arch), CT_ERR_CONFIG);
}

/* The largest sizes that each limit alone allows must not wrap the count. */
static void too_many_parameters_are_refused(void **state) {
    (void)state;
    struct ct_model_shape shape = LLAMA_SHAPE(CT_VOCAB_MAX, CT_CONTEXT_MAX, CT_LAYERS_MAX, 2, 2,
                                              CT_WIDTH_MAX, CT_HIDDEN_MAX, false);
    assert_int_equal(ct_shape_settle(&shape), CT_ERR_CONFIG);
    assert_non_null(strstr(ct_err_detail(), "35321878216704 parameters"));
}

static double deviation(const float *values, size_t count, double mean) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += ((double)values[i] - mean) * ((double)values[i] - mean);
    }
    return sqrt(sum / (double)count);
}

static void first_llama_is_drawn_by_the_same_rule(void **state) {
    (void)state;
    const struct ct_model_shape shape = LLAMA_SHAPE(256, 64, 2, 4, 2, 64, 192, false);
    struct ct_layout layout;
    assert_int_equal(ct_layout_init(&layout, &shape), CT_OK);
    float *theta = malloc(layout.parameters * sizeof *theta);
    assert_non_null(theta);
    ct_layout_draw(&layout, &(struct ct_hash){{7}}, theta);
    static const char *const whole[] = {"lm_head.weight", "model.embed_tokens.weight",
                                        "model.layers.1.self_attn.q_proj.weight",
                                        "model.layers.0.mlp.up_proj.weight"};
    static const char *const residual[] = {"model.layers.0.self_attn.o_proj.weight",
                                           "model.layers.1.mlp.down_proj.weight"};
    for (int i = 0; i < 4; i++) {
        const struct ct_tensor *tensor = ct_layout_find(&layout, whole[i]);
        const size_t count = (size_t)tensor->rows * tensor->columns;
        assert_float_equal(deviation(theta + tensor->offset, count, 0.0), 0.02, 0.0008);
    }
    for (int i = 0; i < 2; i++) {
        const struct ct_tensor *tensor = ct_layout_find(&layout, residual[i]);
        const size_t count = (size_t)tensor->rows * tensor->columns;
        assert_float_equal(deviation(theta + tensor->offset, count, 0.0), 0.01, 0.0004);
    }
    const struct ct_tensor *gain =
        ct_layout_find(&layout, "model.layers.1.post_attention_layernorm.weight");
    for (int i = 0; i < 64; i++) {
        assert_true(theta[gain->offset + (size_t)i] == 1.0f);
    }
    free(theta);
    ct_layout_deinit(&layout);
}

static void first_model_is_a_function_of_the_seed(void **state) {
    (void)state;
    const struct ct_model_shape shape = GPT2_SHAPE(256, 64, 2, 4, 64);
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

/* Draws of every instruction set, by the header's formula from one block a value; indices pass
 * 2^32.
 */
static void every_isa_draws_the_same(void **state) {
    (void)state;
    enum { VALUES = 150 };
    const struct ct_philox philox = ct_philox_make(&(struct ct_hash){{9, 8}}, CT_STREAM_INIT);
    const uint64_t first = (1ull << 32) - 70;
    const struct ct_mode mode = ct_mode_enter();
    float expected[VALUES];
    for (size_t i = 0; i < VALUES; i++) {
        uint32_t w[4];
        ct_philox_block(&philox, first + i, 0, w);
        const double u = (double)((((uint64_t)w[0] << 32 | w[1]) >> 11) + 1) * 0x1p-53;
        const double v = (double)((((uint64_t)w[2] << 32 | w[3]) >> 11) + 1) * 0x1p-53;
        const double radius = __builtin_sqrt(-2.0 * ct_log64(u));
        expected[i] = (float)(radius * ct_cos64(0x1.921fb54442d18p+2 * v) * 0.02);
    }
    for (int isa = CT_ISA_SCALAR; isa <= CT_ISA_AVX512BF16; isa++) {
        struct ct_ops ops;
        if (ct_ops_install(&ops, (enum ct_isa)isa) != CT_OK) {
            continue;
        }
        for (size_t count = 0; count <= VALUES; count += 50) {
            float drawn[VALUES] = {0};
            ops.normals(drawn, &philox, first, 0.02, count);
            assert_memory_equal(drawn, expected, count * sizeof *drawn);
        }
    }
    ct_mode_leave(mode);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_small_has_its_known_size),
        cmocka_unit_test(tensors_stand_back_to_back_in_byte_order),
        cmocka_unit_test(wrong_shapes_are_refused),
        cmocka_unit_test(llamas_have_their_known_sizes),
        cmocka_unit_test(llama_has_hugging_faces_names_and_orientation),
        cmocka_unit_test(shapes_are_settled_or_left_alone),
        cmocka_unit_test(too_many_parameters_are_refused),
        cmocka_unit_test(first_llama_is_drawn_by_the_same_rule),
        cmocka_unit_test(first_model_is_a_function_of_the_seed),
        cmocka_unit_test(every_isa_draws_the_same),
    };
    if (ct_isa_start() != CT_OK) {
        fprintf(stderr, "%s\n", ct_err_detail());
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
