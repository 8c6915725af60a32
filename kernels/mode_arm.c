#include <cotrain/mode.h>

#include <cotrain/assert.h>

/* FPCR: flush to zero, nothing trapped, round to nearest even, every later feature off. Its upper
 * half is reserved as zero. The flags stand in another register, FPSR. */
enum { E1 = 1 << 24 };

static uint32_t get_fpcr(void) {
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr) : : "memory");
    return (uint32_t)fpcr;
}

static void set_fpcr(uint32_t value) {
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)value) : "memory");
}

struct ct_mode ct_mode_enter(void) {
    const struct ct_mode mode = {get_fpcr()};
    set_fpcr(E1);
    return mode;
}

void ct_mode_leave(struct ct_mode mode) {
    CT_ASSERT(get_fpcr() == E1);
    set_fpcr(mode.saved);
}
