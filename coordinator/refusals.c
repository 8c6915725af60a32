#include "refusals.h"

#include <cotrain/log.h>

#include <stdarg.h>
#include <stdio.h>

bool ct_refusals_log(struct ct_refusals *refusals, uint64_t now_ms, const char *format, ...) {
    refusals->count++;
    if (now_ms - refusals->window_ms >= CT_REFUSALS_WINDOW_MS) {
        if (refusals->unlogged > 0) {
            ct_log(CT_LOG_WARN, "intake", "refused: %u more that were not logged",
                   refusals->unlogged);
        }
        refusals->window_ms = now_ms;
        refusals->lines = refusals->unlogged = 0;
    }
    if (refusals->lines >= CT_REFUSALS_LINES_MAX) {
        refusals->unlogged++;
        return false;
    }
    refusals->lines++;
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    ct_log(CT_LOG_WARN, "intake", "refused, %s", text);
    return true;
}
