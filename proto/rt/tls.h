/* The TLS door: TLS 1.3 over memory, with self-signed Ed25519 certificates on both sides and no
 * certification chain (protocol.md section 3). No sockets here; link.c moves the bytes. */
#ifndef PROTO_RT_TLS_H
#define PROTO_RT_TLS_H

#include <cotrain/crypto.h>

/* What all sessions of one side and one identity share. */
struct ct_tls_context;
/* Makes the certificate in memory. On failure nothing is owned. The key may be freed afterwards. */
CT_MUST_CHECK enum ct_err ct_tls_context_open(bool server, const struct ct_key *key,
                                              struct ct_tls_context **out);
/* NULL is allowed; sessions that are open stay usable. */
void ct_tls_context_close(struct ct_tls_context *context);

struct ct_tls;
/* `expected`, if not NULL, is the only key that the handshake accepts; copied. */
CT_MUST_CHECK enum ct_err ct_tls_open(struct ct_tls_context *context,
                                      const struct ct_hash *expected, struct ct_tls **out);
void ct_tls_close(struct ct_tls *tls);

/* Bytes from the other side, to be followed by ct_tls_handshake or ct_tls_read. */
CT_MUST_CHECK enum ct_err ct_tls_feed(struct ct_tls *tls, const void *data, size_t length);
/* Goes on with the handshake as far as the bytes reach. CT_ERR_TLS with the reason. */
CT_MUST_CHECK enum ct_err ct_tls_handshake(struct ct_tls *tls, bool *out_done);
/* The other side's key; zero before the handshake is done. */
const struct ct_hash *ct_tls_peer_key(const struct ct_tls *tls);

/* At most `capacity` decrypted bytes; length 0 when there are none now. *out_closed: the other side
 * has ended its direction. */
CT_MUST_CHECK enum ct_err ct_tls_read(struct ct_tls *tls, void *out, size_t capacity,
                                      size_t *out_length, bool *out_closed);
CT_MUST_CHECK enum ct_err ct_tls_write(struct ct_tls *tls, const void *data, size_t length);
/* Queues the end of our direction. */
void ct_tls_shutdown(struct ct_tls *tls);

/* Bytes for the other side: how many wait, and taking them. */
size_t ct_tls_pending(const struct ct_tls *tls);
void ct_tls_take(struct ct_tls *tls, void *out, size_t length);

#endif
