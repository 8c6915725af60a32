#include <cotrain/buf.h>
#include <cotrain/isa.h>
#include <cotrain/model_dir.h>
#include <cotrain/safetensors.h>

#include "fixture.h"
#include "shapes.h"

#include <math.h>

static const struct ct_model_shape shape = GPT2_SHAPE(11, 5, 2, 2, 6);

struct model {
    char *dir;
    struct ct_layout layout;
    float *theta;
};

static int set_up(void **state) {
    struct model *model = calloc(1, sizeof *model);
    assert_non_null(model);
    model->dir = fixture_dir();
    assert_int_equal(ct_layout_init(&model->layout, &shape), CT_OK);
    model->theta = malloc(model->layout.parameters * sizeof(float));
    assert_non_null(model->theta);
    for (size_t i = 0; i < model->layout.parameters; i++) {
        model->theta[i] = (float)i * 0.25f - 7.0f;
    }
    assert_int_equal(ct_model_save(model->dir, &model->layout, model->theta), CT_OK);
    *state = model;
    return 0;
}

static int tear_down(void **state) {
    struct model *model = *state;
    fixture_remove(model->dir);
    free(model->dir);
    ct_layout_deinit(&model->layout);
    free(model->theta);
    free(model);
    return 0;
}

static void read_file(const struct model *model, const char *name, struct ct_buf *out) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", model->dir, name);
    ct_buf_init(out, 1 << 20);
    assert_int_equal(ct_file_read(path, out), CT_OK);
}

static void write_file(const struct model *model, const char *name, const void *data, size_t n) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", model->dir, name);
    assert_int_equal(ct_file_replace(path, (struct ct_bytes){data, n}), CT_OK);
}

static enum ct_err load(const struct model *model) {
    struct ct_layout layout;
    float *theta;
    const enum ct_err err = ct_model_load(model->dir, &layout, &theta);
    if (err == CT_OK) {
        free(theta);
        ct_layout_deinit(&layout);
    }
    return err;
}

static void what_is_saved_is_loaded(void **state) {
    struct model *model = *state;
    struct ct_layout layout;
    float *theta;
    assert_int_equal(ct_model_load(model->dir, &layout, &theta), CT_OK);
    assert_true(same_shape(&layout.shape, &model->layout.shape));
    assert_memory_equal(theta, model->theta, layout.parameters * sizeof(float));
    free(theta);
    ct_layout_deinit(&layout);
}

/* The file's own parts, taken apart by hand as the format says. */
static void the_file_is_safetensors(void **state) {
    struct model *model = *state;
    struct ct_buf file;
    read_file(model, "model.safetensors", &file);
    uint64_t length;
    memcpy(&length, file.data, 8);
    assert_int_equal(length % 8, 0);
    assert_int_equal(file.length, 8 + length + model->layout.parameters * 4);
    char *header = strndup((const char *)file.data + 8, length);
    assert_non_null(strstr(header, "{\"__metadata__\":{\"format\":\"pt\"}"));
    const struct ct_tensor *wte = ct_layout_find(&model->layout, "transformer.wte.weight");
    char expected[200];
    snprintf(expected, sizeof expected,
             "\"transformer.wte.weight\":{\"dtype\":\"F32\",\"shape\":[11,6],\"data_offsets\":[%zu,"
             "%zu]}",
             wte->offset * 4, (wte->offset + 66) * 4);
    assert_non_null(strstr(header, expected));
    assert_non_null(strstr(header, "\"transformer.ln_f.bias\":{\"dtype\":\"F32\",\"shape\":[6],"));
    assert_memory_equal(file.data + 8 + length, model->theta, model->layout.parameters * 4);
    free(header);
    ct_buf_deinit(&file);
}

/* Puts `new` in the place of `old`, of the same length, once. */
static void patch(const struct model *model, const char *name, const char *old, const char *new) {
    struct ct_buf file;
    read_file(model, name, &file);
    uint8_t *place = memmem(file.data, file.length, old, strlen(old));
    assert_non_null(place);
    assert_int_equal(strlen(old), strlen(new));
    memcpy(place, new, strlen(new));
    write_file(model, name, file.data, file.length);
    ct_buf_deinit(&file);
}

static void damaged_headers_are_refused(void **state) {
    struct model *model = *state;
    static const struct {
        const char *old, *new;
    } patches[] = {
        {"\"F32\"", "\"F16\""},
        {"\"shape\":[11,6]", "\"shape\":[6,11]"},
        {"\"shape\":[6]", "\"shape\":[7]"},
        {"\"shape\":[6]", "\"shape\": 6 "},
        {"[0,72]", "[0,76]"},
        {"[0,72]", "[4,76]"},
        {"[0,72]", "[-1,2]"},
        {"transformer.wpe", "transformer.xpe"},
        {"h.1.ln_1.bias", "h.0.ln_1.bias"},
        {"\"pt\"", "1234"},
        {"__metadata__", "__metadatA__"},
    };
    for (size_t i = 0; i < sizeof patches / sizeof patches[0]; i++) {
        patch(model, "model.safetensors", patches[i].old, patches[i].new);
        assert_int_equal(load(model), CT_ERR_FORMAT);
        assert_int_equal(ct_model_save(model->dir, &model->layout, model->theta), CT_OK);
    }
    assert_int_equal(load(model), CT_OK);
}

static void every_cut_and_every_length_is_refused(void **state) {
    struct model *model = *state;
    struct ct_buf file;
    read_file(model, "model.safetensors", &file);
    for (size_t length = 0; length < file.length; length += 61) {
        write_file(model, "model.safetensors", file.data, length);
        assert_int_equal(load(model), CT_ERR_FORMAT);
    }
    uint8_t *longer = calloc(1, file.length + 4);
    assert_non_null(longer);
    memcpy(longer, file.data, file.length);
    write_file(model, "model.safetensors", longer, file.length + 4);
    assert_int_equal(load(model), CT_ERR_FORMAT);
    static const uint64_t lengths[] = {0, 1, UINT64_MAX, (uint64_t)1 << 40};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        memcpy(longer, &lengths[i], 8);
        write_file(model, "model.safetensors", longer, file.length);
        assert_int_equal(load(model), CT_ERR_FORMAT);
    }
    free(longer);
    ct_buf_deinit(&file);
}

static void values_are_finite_and_normal(void **state) {
    struct model *model = *state;
    model->theta[3] = -0x1p-130f;
    model->theta[4] = 0x1p-126f;
    assert_int_equal(ct_model_save(model->dir, &model->layout, model->theta), CT_OK);
    struct ct_layout layout;
    float *theta;
    assert_int_equal(ct_model_load(model->dir, &layout, &theta), CT_OK);
    assert_true(theta[3] == 0.0f && signbit(theta[3]));
    assert_true(theta[4] == 0x1p-126f);
    free(theta);
    ct_layout_deinit(&layout);
    model->theta[5] = INFINITY;
    assert_int_equal(ct_model_save(model->dir, &model->layout, model->theta), CT_OK);
    assert_int_equal(load(model), CT_ERR_NUMERIC);
}

static void config_must_say_what_we_compute(void **state) {
    struct model *model = *state;
    static const struct {
        const char *old, *new;
        enum ct_err err;
    } patches[] = {
        {"\"gpt2\"", "\"gptj\"", CT_ERR_UNSUPPORTED},
        {"gelu_new", "gelu_old", CT_ERR_UNSUPPORTED},
        {"1e-05", "1e-06", CT_ERR_UNSUPPORTED},
        {"true", "null", CT_OK},
        {"n_embd", "n_embx", CT_ERR_FORMAT},
        {"\"n_head\": 2", "\"n_head\": 4", CT_ERR_CONFIG},
        {"\"n_head\": 2", "\"n_head\": 0", CT_ERR_FORMAT},
        {"\"n_layer\": 2", "\"n_layer\": 3", CT_ERR_FORMAT},
        {"{", "[", CT_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof patches / sizeof patches[0]; i++) {
        patch(model, "config.json", patches[i].old, patches[i].new);
        assert_int_equal(load(model), patches[i].err);
        assert_int_equal(ct_model_save(model->dir, &model->layout, model->theta), CT_OK);
    }
    write_file(model, "config.json", "", 0);
    assert_int_equal(load(model), CT_ERR_FORMAT);
}

/* A file as other programs write it, tensor by tensor, values in the order of the header. */
struct foreign {
    struct ct_buf header, values;
};

static void foreign_init(struct foreign *foreign) {
    ct_buf_init(&foreign->header, 1 << 20);
    ct_buf_init(&foreign->values, 1 << 20);
}

static void foreign_add(struct foreign *foreign, const char *name, const char *type,
                        const char *shape_text, const void *data, size_t bytes) {
    assert_int_equal(
        ct_buf_printf(&foreign->header,
                      "%s\"%s\":{\"shape\":[%s],\"data_offsets\":[%zu,%zu],\"dtype\":\"%s\"}",
                      foreign->header.length == 0 ? "{" : ",", name, shape_text,
                      foreign->values.length, foreign->values.length + bytes, type),
        CT_OK);
    assert_int_equal(ct_buf_append(&foreign->values, data, bytes), CT_OK);
}

/* A finite half's value, and the half of a value that has one and is normal or zero. */
static float value_of_half(uint16_t half) {
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    const float magnitude = exponent == 0 ? ldexpf((float)fraction, -24)
                                          : ldexpf((float)(1024 + fraction), exponent - 25);
    return half >> 15 != 0 ? -magnitude : magnitude;
}

static uint16_t half_of_value(float value) {
    int exponent;
    const float fraction = frexpf(fabsf(value), &exponent);
    const int bits = value == 0.0f ? 0 : (exponent + 14) * 1024 + (int)(fraction * 2048.0f) - 1024;
    const uint16_t half = (uint16_t)(bits | (signbit(value) ? 0x8000 : 0));
    assert_true(value_of_half(half) == value);
    return half;
}

/* One of the layout's tensors under another name, as F32, BF16 or F16 of values that all can say.
 */
static void foreign_add_tensor(struct foreign *foreign, const struct model *model, uint32_t index,
                               const char *name, const char *type) {
    const struct ct_tensor *tensor = &model->layout.tensors[index];
    const size_t count = (size_t)tensor->rows * tensor->columns;
    const float *values = model->theta + tensor->offset;
    uint16_t *narrow = malloc(count * sizeof *narrow);
    assert_non_null(narrow);
    for (size_t i = 0; i < count && strcmp(type, "F16") == 0; i++) {
        narrow[i] = half_of_value(values[i]);
    }
    for (size_t i = 0; i < count && strcmp(type, "BF16") == 0; i++) {
        memcpy(&narrow[i], (const char *)&values[i] + 2, sizeof narrow[i]);
    }
    char shape_text[32];
    if (tensor->kind == CT_TENSOR_VECTOR) {
        snprintf(shape_text, sizeof shape_text, "%u", tensor->columns);
    } else {
        snprintf(shape_text, sizeof shape_text, "%u,%u", tensor->rows, tensor->columns);
    }
    const bool whole = strcmp(type, "F32") == 0;
    foreign_add(foreign, name, type, shape_text, whole ? (const void *)values : narrow,
                count * (whole ? sizeof(float) : sizeof *narrow));
    free(narrow);
}

static void foreign_write(struct foreign *foreign, const struct model *model) {
    assert_int_equal(ct_buf_printf(&foreign->header, "}"), CT_OK);
    struct ct_buf file;
    ct_buf_init(&file, 2 << 20);
    const uint64_t length = foreign->header.length;
    assert_int_equal(ct_buf_append(&file, &length, sizeof length), CT_OK);
    assert_int_equal(ct_buf_append(&file, foreign->header.data, length), CT_OK);
    assert_int_equal(ct_buf_append(&file, foreign->values.data, foreign->values.length), CT_OK);
    write_file(model, "model.safetensors", file.data, file.length);
    ct_buf_deinit(&file);
    ct_buf_deinit(&foreign->header);
    ct_buf_deinit(&foreign->values);
}

static void expect_theta(const struct model *model) {
    struct ct_layout layout;
    float *theta;
    assert_int_equal(ct_model_load(model->dir, &layout, &theta), CT_OK);
    assert_memory_equal(theta, model->theta, layout.parameters * sizeof(float));
    free(theta);
    ct_layout_deinit(&layout);
}

/* As openai-community/gpt2 is stored: no prefix, causal masks; and a tied head besides. */
static void a_gpt2_of_others_is_read(void **state) {
    struct model *model = *state;
    for (int variant = 0; variant < 4; variant++) {
        struct foreign foreign;
        foreign_init(&foreign);
        static const uint8_t mask[25] = {0};
        foreign_add(&foreign, "h.0.attn.bias", "U8", "1,1,5,5", mask, 25);
        uint32_t wte = 0;
        for (uint32_t i = model->layout.tensor_count; i-- > 0;) {
            const char *name = model->layout.tensors[i].name;
            wte = strcmp(name, "transformer.wte.weight") == 0 ? i : wte;
            foreign_add_tensor(&foreign, model, i, name + strlen("transformer."), "F32");
        }
        if (variant == 1) {
            foreign_add_tensor(&foreign, model, wte, "lm_head.weight", "F32");
        } else if (variant == 2) {
            static const float other[66] = {1.0f};
            foreign_add(&foreign, "lm_head.weight", "F32", "11,6", other, sizeof other);
        } else if (variant == 3) {
            foreign_add_tensor(&foreign, model, wte, "transformer.wte.weight", "F32");
        }
        foreign_write(&foreign, model);
        if (variant < 2) {
            expect_theta(model);
        } else {
            assert_int_equal(load(model), CT_ERR_FORMAT);
        }
    }
}

static void sixteen_bits_are_read_exactly(void **state) {
    struct model *model = *state;
    static const char *const types[] = {"F32", "BF16", "F16"};
    for (size_t i = 0; i < model->layout.parameters; i++) {
        model->theta[i] = (float)((int)(i % 201) - 100) * 0x1p-9f; /* 8 bits */
    }
    struct foreign foreign;
    foreign_init(&foreign);
    for (uint32_t i = 0; i < model->layout.tensor_count; i++) {
        foreign_add_tensor(&foreign, model, i, model->layout.tensors[i].name, types[i % 3]);
    }
    foreign_write(&foreign, model);
    expect_theta(model);
}

/* Every finite half there is, subnormal ones too, and what is refused. */
static void every_half_is_read_exactly(void **state) {
    struct model *model = *state;
    enum { FINITE = 2 * 0x7c00 };
    uint16_t *halves = malloc(FINITE * sizeof *halves);
    float *values = malloc(FINITE * sizeof *values);
    assert_true(halves != NULL && values != NULL);
    for (unsigned i = 0; i < FINITE; i++) {
        halves[i] = (uint16_t)(i % 2 << 15 | i / 2);
    }
    struct foreign foreign;
    foreign_init(&foreign);
    foreign_add(&foreign, "a", "F16", "62,1024", halves, FINITE * sizeof *halves);
    foreign_add(&foreign, "b", "F16", "", (const uint16_t[]){0x7c00}, 2);
    foreign_add(&foreign, "c", "BF16", "2", (const uint16_t[]){0x7fc0, 0}, 4);
    foreign_add(&foreign, "d", "I32", "1", (const int[]){1}, 4);
    foreign_write(&foreign, model);
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/model.safetensors", model->dir);
    struct ct_safetensors *file;
    assert_int_equal(ct_safetensors_open(path, &file), CT_OK);
    assert_int_equal(ct_safetensors_count(file), 4);
    assert_int_equal(ct_safetensors_read(file, ct_safetensors_find(file, "a"), values), CT_OK);
    for (unsigned i = 0; i < FINITE; i++) {
        const float expected = value_of_half(halves[i]);
        assert_memory_equal(&values[i], &expected, sizeof expected);
    }
    const struct ct_safetensors_entry *scalar = ct_safetensors_find(file, "b");
    assert_int_equal(scalar->dimension_count, 0);
    assert_int_equal(ct_safetensors_read(file, scalar, values), CT_ERR_NUMERIC);
    assert_int_equal(ct_safetensors_read(file, ct_safetensors_find(file, "c"), values),
                     CT_ERR_NUMERIC);
    assert_int_equal(ct_safetensors_read(file, ct_safetensors_find(file, "d"), values),
                     CT_ERR_UNSUPPORTED);
    assert_null(ct_safetensors_find(file, "e"));
    ct_safetensors_close(file);
    free(values);
    free(halves);
}

static void a_llama_is_saved_and_loaded(void **state) {
    struct model *model = *state;
    for (int variant = 0; variant < 2; variant++) {
        struct ct_model_shape llama = LLAMA_SHAPE(11, 5, 2, 2, 1, 8, 5, variant == 0);
        llama.norm_epsilon = 1e-6f;
        llama.rope_theta = 500000.0f;
        struct ct_layout layout, again;
        float *theta;
        assert_int_equal(ct_layout_init(&layout, &llama), CT_OK);
        assert_true(layout.parameters <= model->layout.parameters);
        assert_int_equal(ct_model_save(model->dir, &layout, model->theta), CT_OK);
        assert_int_equal(ct_model_load(model->dir, &again, &theta), CT_OK);
        assert_true(same_shape(&layout.shape, &again.shape));
        assert_memory_equal(theta, model->theta, layout.parameters * sizeof(float));
        free(theta);
        ct_layout_deinit(&again);
        ct_layout_deinit(&layout);
    }
}

/* What configurations of others may say, and what they may not. */
static void llamas_of_others_are_understood_or_refused(void **state) {
    struct model *model = *state;
    static const struct {
        const char *rest;
        enum ct_err err;
    } cases[] = {
        {"", CT_OK},
        {",\"rope_theta\":500000.0,\"rms_norm_eps\":1e-05,\"hidden_act\":\"silu\"", CT_OK},
        {",\"rope_scaling\":null,\"head_dim\":4,\"pretraining_tp\":1", CT_OK},
        {",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":10000}", CT_OK},
        {",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0}", CT_ERR_UNSUPPORTED},
        {",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0}", CT_ERR_UNSUPPORTED},
        {",\"rope_scaling\":1", CT_ERR_FORMAT},
        {",\"hidden_act\":\"gelu\"", CT_ERR_UNSUPPORTED},
        {",\"attention_bias\":true", CT_ERR_UNSUPPORTED},
        {",\"mlp_bias\":0", CT_ERR_FORMAT},
        {",\"head_dim\":8", CT_ERR_UNSUPPORTED},
        {",\"num_key_value_heads\":3", CT_ERR_CONFIG},
        {",\"rms_norm_eps\":\"1e-5\"", CT_ERR_FORMAT},
        {",\"rms_norm_eps\":-1e-5", CT_ERR_FORMAT},
        {",\"rope_theta\":1e30", CT_ERR_CONFIG},
        {",\"tie_word_embeddings\":\"no\"", CT_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[600];
        const int length =
            snprintf(text, sizeof text,
                     "{\"model_type\":\"llama\",\"vocab_size\":11,\"max_position_embeddings\":5,"
                     "\"hidden_size\":8,\"intermediate_size\":12,\"num_hidden_layers\":2,"
                     "\"num_attention_heads\":2%s}",
                     cases[i].rest);
        write_file(model, "config.json", text, (size_t)length);
        struct ct_model_shape llama;
        const enum ct_err err = ct_model_load_shape(model->dir, &llama);
        if (err != cases[i].err) {
            fail_msg("%s: %s", cases[i].rest, ct_err_detail());
        }
        if (err == CT_OK) {
            assert_true(llama.hidden == 12 && llama.kv_heads == 2 && !llama.tied);
            assert_true(llama.norm_epsilon == (i == 1 ? 1e-5f : 1e-6f));
            assert_true(llama.rope_theta == (i == 1 ? 500000.0f : 10000.0f));
        }
    }
}

static void nothing_there_is_not_found(void **state) {
    (void)state;
    struct ct_layout layout;
    float *theta;
    assert_int_equal(ct_model_load("/nonexistent", &layout, &theta), CT_ERR_NOT_FOUND);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_saved_is_loaded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_file_is_safetensors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(damaged_headers_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_cut_and_every_length_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(values_are_finite_and_normal, set_up, tear_down),
        cmocka_unit_test_setup_teardown(config_must_say_what_we_compute, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_gpt2_of_others_is_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(sixteen_bits_are_read_exactly, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_half_is_read_exactly, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_llama_is_saved_and_loaded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(llamas_of_others_are_understood_or_refused, set_up,
                                        tear_down),
        cmocka_unit_test(nothing_there_is_not_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
