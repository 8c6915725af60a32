#include "kernels/cpu.h"
#include "kernels/ops.h"
#include "kernels/selftest.h"

#include <cotrain/isa.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* The choice is made once a process, so each one is tried in a child: returns the error code and
 * the detail or the active ISA's name. */
static enum ct_err start_with(const char *value, char text[512]) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        value != NULL ? setenv("COTRAIN_ISA", value, 1) : unsetenv("COTRAIN_ISA");
        enum ct_err err = ct_isa_start();
        if (ct_isa_start() != err) {
            _exit(99);
        }
        const char *said = err == CT_OK ? ct_isa_name(ct_isa_active()) : ct_err_detail();
        const ssize_t written = write(ends[1], said, strlen(said));
        _exit(written == (ssize_t)strlen(said) ? (int)err : 98);
    }
    close(ends[1]);
    const ssize_t length = read(ends[0], text, 511);
    assert_true(length >= 0);
    text[length] = '\0';
    close(ends[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return (enum ct_err)WEXITSTATUS(status);
}

static void best_is_chosen(void **state) {
    (void)state;
    char text[512];
    enum ct_isa best = CT_ISA_SCALAR;
    for (int isa = CT_ISA_SCALAR; isa <= CT_ISA_NEON; isa++) {
        best = ct_isa_supported((enum ct_isa)isa) ? (enum ct_isa)isa : best;
    }
    assert_int_equal(start_with(NULL, text), CT_OK);
    assert_string_equal(text, ct_isa_name(best));
    assert_int_equal(start_with("", text), CT_OK);
    assert_string_equal(text, ct_isa_name(best));
}

static void names_force_an_isa(void **state) {
    (void)state;
    for (int isa = CT_ISA_SCALAR; isa <= CT_ISA_NEON; isa++) {
        const char *name = ct_isa_name((enum ct_isa)isa);
        char text[512];
        const enum ct_err err = start_with(name, text);
        if (ct_isa_supported((enum ct_isa)isa)) {
            assert_int_equal(err, CT_OK);
            assert_string_equal(text, name);
        } else {
            assert_int_equal(err, CT_ERR_UNSUPPORTED);
            assert_non_null(strstr(text, name));
            print_message("%s\n", text);
        }
    }
}

static void unknown_name_is_refused(void **state) {
    (void)state;
    char text[512];
    assert_int_equal(start_with("avx1024", text), CT_ERR_CONFIG);
    assert_non_null(strstr(text, "COTRAIN_ISA=avx1024"));
    assert_non_null(strstr(text, "avx512bf16"));
}

static void every_isa_here_passes(void **state) {
    (void)state;
    struct ct_ops definitions;
    assert_int_equal(ct_ops_install(&definitions, CT_ISA_SCALAR), CT_OK);
    for (int isa = CT_ISA_SCALAR; isa <= CT_ISA_NEON; isa++) {
        struct ct_ops ops;
        if (ct_ops_install(&ops, (enum ct_isa)isa) != CT_OK) {
            print_message("not here: %s\n", ct_err_detail());
            continue;
        }
        const char *failed = ct_selftest(&ops, &definitions);
        if (failed != NULL) {
            fail_msg("%s: %s", ct_isa_name((enum ct_isa)isa), failed);
        }
    }
}

#if defined(__x86_64__)
/* Loops of 16 dependent multiply-adds a round, which they tell as 16 operations or as one. */
static double chain(uint64_t rounds, float *sink, double operations) {
    volatile float sum = *sink;
    for (uint64_t i = 0; i < rounds * 16; i++) {
        sum = sum * 0.5f + 1.0f;
    }
    *sink = sum;
    return operations * (double)rounds;
}

static double fast_chain(uint64_t rounds, float *sink) {
    return chain(rounds, sink, 16.0);
}

static double slow_chain(uint64_t rounds, float *sink) {
    return chain(rounds, sink, 1.0);
}
#endif

static void a_race_has_its_winner(void **state) {
    (void)state;
#if defined(__x86_64__)
    assert_true(ct_cpu_outruns(fast_chain, slow_chain));
    assert_false(ct_cpu_outruns(slow_chain, fast_chain));
#endif
    struct ct_ops definitions;
    assert_int_equal(ct_ops_install(&definitions, CT_ISA_SCALAR), CT_OK);
    for (int isa = CT_ISA_SCALAR; isa <= CT_ISA_NEON; isa++) {
        struct ct_ops ops;
        if (ct_ops_install(&ops, (enum ct_isa)isa) != CT_OK) {
            continue;
        }
        ct_cpu_race(&ops, (enum ct_isa)isa);
        assert_null(ct_selftest(&ops, &definitions));
    }
}

/* Tables with one planted fault each: the self-test names it. */
static struct ct_ops sound;

static void even_first(const struct ct_matmul *job, struct ct_hand hand, struct ct_room room) {
    uint16_t a[2];
    memcpy(a, job->a, sizeof a);
    const uint16_t swapped_a[2] = {a[1], a[0]};
    uint16_t swapped_b[128];
    memcpy(swapped_b, job->b, job->n * 2 * sizeof(uint16_t));
    for (size_t i = 0; i < job->n; i++) {
        const uint16_t even = swapped_b[2 * i];
        swapped_b[2 * i] = swapped_b[2 * i + 1];
        swapped_b[2 * i + 1] = even;
    }
    struct ct_matmul copy = *job;
    copy.a = swapped_a;
    copy.b = swapped_b;
    sound.matmul_bf16(&copy, hand, room);
}

static void textbook_bf16(uint16_t *out, const float *in, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &in[i], sizeof bits);
        out[i] = (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
    }
}

static void inexact_divide(float *out, const float *a, float divisor, size_t n) {
    for (size_t i = 0; i < n; i++) {
        out[i] = a[i] * (1.0f / divisor) * (1.0f + 0x1p-23f);
    }
}

static void faults_are_named(void **state) {
    (void)state;
    assert_int_equal(ct_ops_install(&sound, CT_ISA_SCALAR), CT_OK);
    assert_null(ct_selftest(&sound, &sound));
    struct ct_ops faulty = sound;
    faulty.matmul_bf16 = even_first;
    assert_string_equal(ct_selftest(&faulty, NULL), "pair: odd before even");
    faulty = sound;
    faulty.bf16_from = textbook_bf16;
    assert_string_equal(ct_selftest(&faulty, NULL), "bf16: largest subnormal is zero");
    faulty = sound;
    faulty.divide = inexact_divide;
    assert_string_equal(ct_selftest(&faulty, NULL), "div: one third");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(best_is_chosen),          cmocka_unit_test(names_force_an_isa),
        cmocka_unit_test(unknown_name_is_refused), cmocka_unit_test(every_isa_here_passes),
        cmocka_unit_test(a_race_has_its_winner),   cmocka_unit_test(faults_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
