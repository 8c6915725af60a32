/* The epoch's state over restarts: two slots, proven by the state digest. */
#include "node/train_slot.h"

#include "fixture.h"
#include "shapes.h"

#include <cotrain/fold.h>

struct place {
    char *dir;
    struct ct_layout layout;
    struct ct_train_state state, loaded;
};

static int set_up(void **state) {
    struct place *place = calloc(1, sizeof *place);
    const struct ct_model_shape shape = GPT2_SHAPE(64, 4, 1, 2, 8);
    place->dir = fixture_dir();
    assert_int_equal(ct_layout_init(&place->layout, &shape), CT_OK);
    assert_int_equal(ct_train_state_init(&place->state, &place->layout, true), CT_OK);
    assert_int_equal(ct_train_state_init(&place->loaded, &place->layout, true), CT_OK);
    *state = place;
    return 0;
}

static int tear_down(void **state) {
    struct place *place = *state;
    ct_train_state_deinit(&place->state);
    ct_train_state_deinit(&place->loaded);
    ct_layout_deinit(&place->layout);
    fixture_remove(place->dir);
    free(place->dir);
    free(place);
    return 0;
}

/* A state that differs in each round and array. */
static struct ct_hash save(struct place *place, uint32_t round) {
    struct ct_train_state *s = &place->state;
    for (size_t i = 0; i < place->layout.parameters; i++) {
        float x = (float)i + (float)round * 1000.0f;
        s->theta[i] = x;
        s->m[i] = x + 0.25f;
        s->v[i] = x + 0.5f;
        s->e[i] = -x;
    }
    s->step = round * 4;
    struct ct_hash digest = ct_state_digest(&place->layout, s);
    assert_int_equal(ct_train_slots_save(place->dir, &place->layout, round, &digest, s), CT_OK);
    return digest;
}

static enum ct_err load(struct place *place, const struct ct_hash *digest) {
    return ct_train_slots_load(place->dir, &place->layout, digest, &place->loaded);
}

static void the_last_two_are_there(void **state) {
    struct place *place = *state;
    struct ct_train_slot slots[2];
    ct_train_slots_peek(place->dir, slots);
    assert_int_equal(slots[0].round + slots[1].round, 0);
    struct ct_hash first = save(place, 1);
    assert_int_equal(load(place, &first), CT_OK);
    struct ct_hash second = save(place, 2);
    assert_int_equal(load(place, &first), CT_OK);
    struct ct_hash third = save(place, 3);
    assert_int_equal(load(place, &first), CT_ERR_NOT_FOUND);
    assert_int_equal(load(place, &second), CT_OK);
    assert_int_equal(place->loaded.step, 8);
    assert_int_equal(load(place, &third), CT_OK);
    assert_int_equal(place->loaded.step, 12);
    size_t bytes = place->layout.parameters * sizeof(float);
    assert_memory_equal(place->loaded.theta, place->state.theta, bytes);
    assert_memory_equal(place->loaded.m, place->state.m, bytes);
    assert_memory_equal(place->loaded.v, place->state.v, bytes);
    assert_memory_equal(place->loaded.e, place->state.e, bytes);
    ct_train_slots_peek(place->dir, slots);
    assert_int_equal(slots[0].round + slots[1].round, 5);
    assert_true(ct_hash_equal(&slots[0].state, &third) || ct_hash_equal(&slots[1].state, &third));
}

/* A flipped bit anywhere in a slot: never loaded. */
static void damage_is_seen(void **state) {
    struct place *place = *state;
    char path[512];
    struct ct_hash digest = save(place, 1);
    snprintf(path, sizeof path, "%s/slot-0", place->dir);
    struct ct_buf bytes = fixture_read(path);
    for (size_t i = 0; i < bytes.length; i += i < 64 ? 1 : 97) {
        if (i >= 8 && i < 12) {
            continue; /* the round: it only orders the slots */
        }
        bytes.data[i] ^= 0x10;
        fixture_write(path, bytes.data, bytes.length);
        assert_int_not_equal(load(place, &digest), CT_OK);
        bytes.data[i] ^= 0x10;
    }
    for (size_t cut = 0; cut < bytes.length; cut += 131) {
        fixture_write(path, bytes.data, cut);
        assert_int_not_equal(load(place, &digest), CT_OK);
    }
    fixture_write(path, bytes.data, bytes.length);
    assert_int_equal(load(place, &digest), CT_OK);
    ct_buf_deinit(&bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_last_two_are_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(damage_is_seen, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
