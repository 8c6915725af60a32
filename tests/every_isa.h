/* Runs a whole test program again under every overlay that this CPU has, one child each, so that
 * golden values and definitions hold for all of them. */
#ifndef TESTS_EVERY_ISA_H
#define TESTS_EVERY_ISA_H

#include <cotrain/isa.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* Failed children; 0 inside a child (COTRAIN_ISA is set there). */
static inline int run_under_every_isa(void) {
    if (getenv("COTRAIN_ISA") != NULL) {
        return 0;
    }
    int failed = 0;
    for (enum ct_isa isa = CT_ISA_SCALAR; isa <= CT_ISA_AVX512BF16; isa++) {
        if (!ct_isa_supported(isa)) {
            printf("skipped: this CPU cannot run %s\n", ct_isa_name(isa));
            continue;
        }
        fflush(NULL);
        const pid_t child = fork();
        if (child == 0) {
            setenv("COTRAIN_ISA", ct_isa_name(isa), 1);
            execl("/proc/self/exe", "test", (char *)NULL);
            _exit(127);
        }
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
            printf("failed under %s\n", ct_isa_name(isa));
            failed++;
        }
    }
    return failed;
}

#endif
