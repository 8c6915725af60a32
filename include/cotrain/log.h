/* Diagnostics for people and machines: one line each, "time level module text". (The transparency
 * log is ledger.h.) COTRAIN_LOG=debug|info|warn|error sets the level; info is the default. No keys,
 * addresses of volunteers or other personal data in a line. */
#ifndef COTRAIN_LOG_H
#define COTRAIN_LOG_H

enum ct_log_level { CT_LOG_DEBUG, CT_LOG_INFO, CT_LOG_WARN, CT_LOG_ERROR };

/* Standard error until a file is set (append mode; NULL goes back). A file that does not open is
 * reported on standard error, which stays the place. */
void ct_log_to(const char *path);
/* One write(2), so that lines of several processes do not mix; at most 1,024 bytes, the end cut.
 * Bytes of the text that are no printable UTF-8 become '?'. Keeps errno. Any thread. */
void ct_log(enum ct_log_level level, const char *module, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
