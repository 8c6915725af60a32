/* Errors. One table gives code, text and blame; a failing function returns the code and leaves one
 * sentence of detail in the thread, said once, where the failure was seen. */
#ifndef COTRAIN_ERR_H
#define COTRAIN_ERR_H

/* X(name, text). Order is part of no format. */
#define CT_ERR_MAP(X)                                                                              \
    X(OK, "done")                                                                                  \
    X(USAGE, "wrong usage")                                                                        \
    X(CONFIG, "wrong configuration")                                                               \
    X(MEMORY, "out of memory")                                                                     \
    X(IO, "input or output failed")                                                                \
    X(FULL, "no room on the disk")                                                                 \
    X(NOT_FOUND, "not found")                                                                      \
    X(EXISTS, "exists already")                                                                    \
    X(TOO_LARGE, "larger than allowed")                                                            \
    X(FORMAT, "malformed")                                                                         \
    X(SIGNATURE, "signature does not verify")                                                      \
    X(DIGEST, "digest differs")                                                                    \
    X(RULE, "against the rules of the run")                                                        \
    X(STATE, "not possible now")                                                                   \
    X(NUMERIC, "not a finite number")                                                              \
    X(NETWORK, "network failed")                                                                   \
    X(TLS, "TLS failed")                                                                           \
    X(REFUSED, "refused by the other side")                                                        \
    X(UNSUPPORTED, "not supported here")                                                           \
    X(FORKED, "two histories")

enum ct_err {
#define CT_ERR_ENUM(name, text) CT_ERR_##name,
    CT_ERR_MAP(CT_ERR_ENUM)
#undef CT_ERR_ENUM
};
#define CT_OK CT_ERR_OK

#define CT_MUST_CHECK __attribute__((warn_unused_result))

/* The table's text of a code. */
const char *ct_err_text(enum ct_err err);

/* Stores the formatted sentence as this thread's detail (cut at 511 bytes) and returns `err`, so
 * that a failing function ends with `return ct_fail(CT_ERR_FORMAT, "…", …);`. The sentence names
 * the thing (file, line, entry) and, where there is one, what to do next; no secrets. */
enum ct_err ct_fail(enum ct_err err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* This thread's last detail; "" when none was stored. Valid until the thread's next ct_fail. */
const char *ct_err_detail(void);

/* Propagates an error to the caller; for functions that own nothing at this point. */
#define CT_TRY(expression)                                                                         \
    do {                                                                                           \
        enum ct_err ct_try_err_ = (expression);                                                    \
        if (ct_try_err_ != CT_OK) {                                                                \
            return ct_try_err_;                                                                    \
        }                                                                                          \
    } while (0)

#endif
