/* What the thread sanitizer (preset tsan) has to be told. It sees plain accesses to memory, atomics
 * and pthreads. It does not see vector instructions that are functions to the compiler, such as
 * loads and stores with a mask: beside these stand CT_SEEN_READ and CT_SEEN_WRITE, which are
 * nothing in other builds. Clang instruments no access above 16 bytes, its own vectors included:
 * only GCC's build sees all. */
#ifndef COTRAIN_KERNELS_SANITIZER_H
#define COTRAIN_KERNELS_SANITIZER_H

#if defined(__SANITIZE_THREAD__)
#define CT_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CT_THREAD_SANITIZER 1
#endif
#endif
#ifndef CT_THREAD_SANITIZER
#define CT_THREAD_SANITIZER 0
#endif

/* The bytes from `begin` on that the instruction beside it reads, or writes. */
#if CT_THREAD_SANITIZER
#include <stddef.h>
#include <stdint.h>
void __tsan_read_range(void *begin, size_t bytes);
void __tsan_write_range(void *begin, size_t bytes);
#define CT_SEEN_READ(begin, bytes)  __tsan_read_range((void *)(uintptr_t)(begin), bytes)
#define CT_SEEN_WRITE(begin, bytes) __tsan_write_range(begin, bytes)
#else
#define CT_SEEN_READ(begin, bytes)  ((void)0)
#define CT_SEEN_WRITE(begin, bytes) ((void)0)
#endif

#endif
