#include <cotrain/buf.h>
#include <cotrain/isa.h>
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
    assert_memory_equal(&layout.shape, &model->layout.shape, sizeof shape);
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
        cmocka_unit_test(nothing_there_is_not_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
