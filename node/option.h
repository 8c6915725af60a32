/* Numbers on command lines: whole, in range, or a sentence that says what is taken. */
#ifndef NODE_OPTION_H
#define NODE_OPTION_H

#include <cotrain/err.h>
#include <cotrain/types.h>

/* CT_ERR_USAGE when `text` is not a decimal number in [minimum, maximum]. */
CT_MUST_CHECK enum ct_err ct_option_u64(const char *name, const char *text, uint64_t minimum,
                                        uint64_t maximum, uint64_t *out);
CT_MUST_CHECK enum ct_err ct_option_u32(const char *name, const char *text, uint32_t minimum,
                                        uint32_t maximum, uint32_t *out);
CT_MUST_CHECK enum ct_err ct_option_double(const char *name, const char *text, double minimum,
                                           double maximum, double *out);

#endif
