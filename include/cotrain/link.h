/* One framed TLS 1.3 connection on a libuv loop, and the server that accepts them.
 *
 * Both sides show a self-signed Ed25519 certificate; the raw key inside is the identity, everything
 * else in the certificate is ignored (protocol.md section 3). A frame is u32 big-endian length ‖
 * bytes. All calls and callbacks on the loop's thread; no callback runs inside a call. From the
 * first link or server on, the process ignores SIGPIPE: a peer that is gone ends its link alone. */
#ifndef COTRAIN_LINK_H
#define COTRAIN_LINK_H

#include <cotrain/crypto.h>

typedef struct uv_loop_s uv_loop_t;

struct ct_link;
struct ct_link_server;

struct ct_link_events {
    /* The handshake is done; peer_key is the other side's Ed25519 key. */
    void (*opened)(void *user, struct ct_link *link, const struct ct_hash *peer_key);
    /* One whole frame; the bytes are valid during the call. */
    void (*frame)(void *user, struct ct_link *link, struct ct_bytes frame);
    /* Called exactly once, last, also when opening fails; the link is freed after it returns. */
    void (*closed)(void *user, struct ct_link *link, enum ct_err why, const char *detail);
};

/* Connects (host is a name or an address). `expected`, if not NULL, is the only key accepted at the
 * handshake. On CT_OK `closed` will be called one day; on an error nothing was made. */
CT_MUST_CHECK enum ct_err ct_link_connect(uv_loop_t *loop, const char *host, uint16_t port,
                                          const struct ct_key *key, const struct ct_hash *expected,
                                          const struct ct_link_events *events, void *user,
                                          struct ct_link **out);

/* Listens on host:port (port 0: any free one; *out_port is what was bound). For each connection
 * `accept` gives the user pointer for the events (NULL: the connection is closed and no event
 * follows); accepted links use the same events. At most `links_max` at once; further ones are
 * closed with a log line. */
CT_MUST_CHECK enum ct_err ct_link_listen(uv_loop_t *loop, const char *host, uint16_t port,
                                         const struct ct_key *key, uint32_t links_max,
                                         void *(*accept)(void *user, struct ct_link *link),
                                         const struct ct_link_events *events, void *user,
                                         struct ct_link_server **out, uint16_t *out_port);
/* Closes the listener and every link of it. */
void ct_link_server_close(struct ct_link_server *server);

/* Queues one frame (copied). CT_ERR_TOO_LARGE when more than 8 MiB wait: the caller slows down. */
CT_MUST_CHECK enum ct_err ct_link_send(struct ct_link *link, struct ct_bytes frame);
size_t ct_link_queued_bytes(const struct ct_link *link);
/* The largest frame accepted from the other side; starts at CT_FRAME_BYTES_MAX_EARLY. A longer one
 * closes the link with CT_ERR_TOO_LARGE before anything is reserved. */
void ct_link_frame_max(struct ct_link *link, size_t maximum);
/* Counted on the socket, TLS included. */
void ct_link_traffic(const struct ct_link *link, uint64_t *out_received, uint64_t *out_sent);
/* Sends what is queued, then closes: `closed` follows when the other side has ended its direction
 * too, or after three seconds. No other event follows. */
void ct_link_close(struct ct_link *link, enum ct_err why, const char *detail);

#endif
