#include "option.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

enum ct_err ct_option_u64(const char *name, const char *text, uint64_t minimum, uint64_t maximum,
                          uint64_t *out) {
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value < minimum ||
        value > maximum) {
        return ct_fail(CT_ERR_USAGE, "--%s takes a number from %" PRIu64 " to %" PRIu64, name,
                       minimum, maximum);
    }
    *out = value;
    return CT_OK;
}

enum ct_err ct_option_u32(const char *name, const char *text, uint32_t minimum, uint32_t maximum,
                          uint32_t *out) {
    uint64_t value;
    CT_TRY(ct_option_u64(name, text, minimum, maximum, &value));
    *out = (uint32_t)value;
    return CT_OK;
}

enum ct_err ct_option_double(const char *name, const char *text, double minimum, double maximum,
                             double *out) {
    char *end;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= minimum && value <= maximum)) {
        return ct_fail(CT_ERR_USAGE, "--%s takes a number from %g to %g", name, minimum, maximum);
    }
    *out = value;
    return CT_OK;
}
