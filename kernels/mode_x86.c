#include <cotrain/mode.h>

#include <cotrain/assert.h>

#include <xmmintrin.h>

/* MXCSR: flush to zero, denormals are zeros, all exceptions masked, round to nearest even. */
enum { FLAGS = 0x003f, E1 = 0x8000 | 0x0040 | 0x1f80 };

struct ct_mode ct_mode_enter(void) {
    const struct ct_mode mode = {_mm_getcsr()};
    _mm_setcsr(E1);
    return mode;
}

void ct_mode_leave(struct ct_mode mode) {
    CT_ASSERT((_mm_getcsr() & ~(unsigned)FLAGS) == E1);
    _mm_setcsr(mode.saved);
}
