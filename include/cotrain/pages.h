/* Memory for arrays as large as a model. */
#ifndef COTRAIN_PAGES_H
#define COTRAIN_PAGES_H

#include <stddef.h>

/* `bytes` bytes, zeroed by all threads, on huge pages where they are many and the kernel gives such
 * pages: passes over whole models are bound by memory, and small pages cost them a part of it.
 * Aligned to 64 bytes; the caller ends it with free. NULL when there is no such memory. */
void *ct_pages_zeroed(size_t bytes);

/* The same without zeroes: untouched pages take no memory yet. */
void *ct_pages_reserve(size_t bytes);

#endif
