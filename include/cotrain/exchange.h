/* A small request and its answer over HTTP, both whole in memory: what a log says to its witnesses,
 * and asks of its mirrors. (Downloads that resume are fetch.h's.) Blocking; one thread at a
 * time per exchange. Only http and https; redirects are not followed. */
#ifndef COTRAIN_EXCHANGE_H
#define COTRAIN_EXCHANGE_H

#include <cotrain/buf.h>

struct ct_exchange;

/* timeout_ms is for one request with its answer. `cancelled` is asked about once a second; true
 * ends the call with CT_ERR_STATE; may be NULL. On failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_exchange_open(uint32_t timeout_ms, bool (*cancelled)(void *user),
                                           void *user, struct ct_exchange **out);
void ct_exchange_close(struct ct_exchange *exchange); /* NULL is allowed */

/* POSTs `body`, or GETs if it is NULL, and replaces out's content by the answer's body, at most
 * out->maximum bytes. CT_OK whatever the status says, which is in *out_status; CT_ERR_NETWORK when
 * there was no whole answer, CT_ERR_TOO_LARGE, CT_ERR_CONFIG for a URL that is none. */
CT_MUST_CHECK enum ct_err ct_exchange_run(struct ct_exchange *exchange, const char *url,
                                          const struct ct_bytes *body, unsigned *out_status,
                                          struct ct_buf *out);

#endif
