#include <cotrain/pages.h>

#include "parallel.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { LINE = 64, HUGE_PAGE = 2 << 20 };

void *ct_pages_reserve(size_t bytes) {
    const size_t page = bytes < HUGE_PAGE ? LINE : HUGE_PAGE;
    if (bytes == 0 || bytes > SIZE_MAX - page) {
        return bytes == 0 ? ct_pages_reserve(1) : NULL;
    }
    const size_t whole = (bytes + page - 1) / page * page;
    void *memory = aligned_alloc(page, whole);
    if (memory != NULL && page == HUGE_PAGE) {
        /* Advice only: without huge pages all is slower, not wrong. */
        (void)madvise(memory, whole, MADV_HUGEPAGE);
    }
    return memory;
}

static void zero(void *memory, size_t begin, size_t end) {
    memset((char *)memory + begin, 0, end - begin);
}

void *ct_pages_zeroed(size_t bytes) {
    void *memory = ct_pages_reserve(bytes);
    if (memory != NULL) {
        ct_parallel(0, bytes, HUGE_PAGE, zero, memory);
    }
    return memory;
}
