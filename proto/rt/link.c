/* One link is one TCP connection with TLS over it and frames inside.
 *
 * A link is closed in one way: close_now closes its handles, and when the last of handles and
 * requests has called back, `closed` is called and the link is freed. Callbacks of the user run
 * only from the loop, and after ct_link_close none but `closed`. */
#include <cotrain/link.h>

#include "frame.h"
#include "tls.h"

#include <cotrain/assert.h>
#include <cotrain/limits.h>
#include <cotrain/log.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uv.h>

#define SEND_BYTES_MAX (8u << 20)
#define READ_BYTES     65536u
#define OPEN_TIME_MS   15000u /* from the start to the end of the handshake */
#define LINGER_TIME_MS 3000u  /* for the other side to take the last bytes */
#define REFUSED_LOG_MS 10000u
#define BACKLOG        128

enum link_state { LINK_CONNECTING, LINK_HANDSHAKE, LINK_OPEN, LINK_CLOSING, LINK_CLOSED };

struct ct_link {
    uv_loop_t *loop;
    uv_tcp_t tcp;
    uv_timer_t timer;
    uv_connect_t connecting;
    uv_getaddrinfo_t resolving;
    uv_shutdown_t shutdown;
    struct addrinfo *addresses, *next_address;
    bool resolving_now, tcp_made, tcp_retry, timer_made, ended; /* ended: by the other side */

    enum link_state state;
    enum ct_err why;
    char detail[256];
    char peer_name[300]; /* host and port of an outgoing link, for messages */

    struct ct_tls *tls;
    struct ct_link_events events;
    void *user;
    struct ct_link_server *server; /* NULL: outgoing */
    struct ct_link *previous, *next;

    size_t queued_bytes;
    uint64_t received_bytes, sent_bytes;
    struct ct_frame_reader reader;
};

struct ct_link_server {
    uv_tcp_t tcp;
    struct ct_tls_context *tls;
    void *(*accept)(void *user, struct ct_link *link);
    struct ct_link_events events;
    void *user;
    struct ct_link *links;
    uint32_t link_count, links_max;
    uint64_t refused_logged_ms;
    bool listening, closing;
};

struct write_job {
    uv_write_t request;
    struct ct_link *link;
    size_t length;
    uint8_t bytes[];
};

static void close_now(struct ct_link *link, enum ct_err why, const char *detail);
static void try_next_address(struct ct_link *link);
static void server_free_if_done(struct ct_link_server *server);

static void free_if_done(struct ct_link *link) {
    if (link->state != LINK_CLOSED || link->tcp_made || link->timer_made || link->resolving_now) {
        return;
    }
    struct ct_link_server *server = link->server;
    if (server != NULL) {
        if (link->previous != NULL) {
            link->previous->next = link->next;
        } else {
            server->links = link->next;
        }
        if (link->next != NULL) {
            link->next->previous = link->previous;
        }
        server->link_count--;
    }
    if (link->events.closed != NULL) {
        link->events.closed(link->user, link, link->why, link->detail);
    }
    if (link->addresses != NULL) {
        uv_freeaddrinfo(link->addresses);
    }
    ct_tls_close(link->tls);
    ct_frame_reader_deinit(&link->reader);
    free(link);
    if (server != NULL) {
        server_free_if_done(server);
    }
}

static void on_tcp_closed(uv_handle_t *handle) {
    struct ct_link *link = handle->data;
    link->tcp_made = false;
    if (link->state == LINK_CONNECTING && link->tcp_retry) {
        link->tcp_retry = false;
        try_next_address(link);
        return;
    }
    free_if_done(link);
}

static void on_timer_closed(uv_handle_t *handle) {
    struct ct_link *link = handle->data;
    link->timer_made = false;
    free_if_done(link);
}

/* The first reason given stands. */
static void note_reason(struct ct_link *link, enum ct_err why, const char *detail) {
    if (link->state != LINK_CLOSING && link->state != LINK_CLOSED) {
        link->why = why;
        snprintf(link->detail, sizeof link->detail, "%s", detail != NULL ? detail : "");
    }
}

static void close_now(struct ct_link *link, enum ct_err why, const char *detail) {
    if (link->state == LINK_CLOSED) {
        return;
    }
    note_reason(link, why, detail);
    link->state = LINK_CLOSED;
    if (link->resolving_now) {
        uv_cancel((uv_req_t *)&link->resolving);
    }
    if (link->tcp_made && !uv_is_closing((uv_handle_t *)&link->tcp)) {
        uv_close((uv_handle_t *)&link->tcp, on_tcp_closed);
    }
    if (link->timer_made && !uv_is_closing((uv_handle_t *)&link->timer)) {
        uv_close((uv_handle_t *)&link->timer, on_timer_closed);
    }
}

static void on_timer(uv_timer_t *timer) {
    struct ct_link *link = timer->data;
    close_now(link, CT_ERR_NETWORK,
              link->state == LINK_CONNECTING ? "connecting takes too long"
                                             : "the TLS handshake takes too long");
}

static void on_written(uv_write_t *request, int status) {
    struct write_job *job = (struct write_job *)request;
    struct ct_link *link = job->link;
    link->queued_bytes -= job->length;
    free(job);
    if (status < 0 && status != UV_ECANCELED) {
        close_now(link, CT_ERR_NETWORK, uv_strerror(status));
    }
}

/* Moves what TLS has for the other side into the socket's queue. */
static enum ct_err flush_out(struct ct_link *link) {
    size_t length = ct_tls_pending(link->tls);
    if (length == 0) {
        return CT_OK;
    }
    /* Only answers to the other side's own messages can get past the bound of ct_link_send. */
    if (link->queued_bytes + length > 2u * SEND_BYTES_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "the other side does not read what is sent to it");
    }
    struct write_job *job = malloc(sizeof *job + length);
    if (job == NULL) {
        return ct_fail(CT_ERR_MEMORY, "out of memory for bytes to send");
    }
    job->link = link;
    job->length = length;
    ct_tls_take(link->tls, job->bytes, length);
    uv_buf_t buffer = uv_buf_init((char *)job->bytes, (unsigned)length);
    int status = uv_write(&job->request, (uv_stream_t *)&link->tcp, &buffer, 1, on_written);
    if (status < 0) {
        free(job);
        return ct_fail(CT_ERR_NETWORK, "sending failed: %s", uv_strerror(status));
    }
    link->queued_bytes += length;
    link->sent_bytes += length;
    return CT_OK;
}

static void on_linger_over(uv_timer_t *timer) {
    close_now(timer->data, CT_ERR_NETWORK, "");
}

static void on_shutdown(uv_shutdown_t *request, int status) {
    struct ct_link *link = request->data;
    if (status < 0 || link->ended) {
        close_now(link, CT_ERR_NETWORK, "");
    }
}

/* Sends what is queued and the end of our direction, then reads on until the other side ends its
 * own or the linger time is over: closing a socket with unread bytes would reset it and take our
 * last bytes back. */
static void close_gently(struct ct_link *link, enum ct_err why, const char *detail) {
    if (link->state == LINK_CLOSING || link->state == LINK_CLOSED) {
        return;
    }
    if (link->state == LINK_CONNECTING) {
        close_now(link, why, detail);
        return;
    }
    note_reason(link, why, detail);
    link->state = LINK_CLOSING;
    ct_tls_shutdown(link->tls);
    link->shutdown.data = link;
    if (flush_out(link) != CT_OK ||
        uv_shutdown(&link->shutdown, (uv_stream_t *)&link->tcp, on_shutdown) < 0 ||
        uv_timer_start(&link->timer, on_linger_over, LINGER_TIME_MS, 0) < 0) {
        close_now(link, why, detail);
    }
}

/* Cuts decrypted bytes into frames; stops when a callback closed the link. */
static enum ct_err take_frames(struct ct_link *link, const uint8_t *data, size_t length) {
    while (length > 0 && link->state == LINK_OPEN) {
        size_t used;
        bool whole;
        struct ct_bytes frame;
        CT_TRY(
            ct_frame_read(&link->reader, (struct ct_bytes){data, length}, &used, &whole, &frame));
        data += used;
        length -= used;
        if (whole) {
            link->events.frame(link->user, link, frame);
        }
    }
    return CT_OK;
}

static enum ct_err read_frames(struct ct_link *link) {
    uint8_t plain[16384];
    while (link->state == LINK_OPEN) {
        size_t length;
        bool closed;
        CT_TRY(ct_tls_read(link->tls, plain, sizeof plain, &length, &closed));
        if (closed) {
            return ct_fail(CT_ERR_NETWORK, "the other side closed the connection");
        }
        if (length == 0) {
            break;
        }
        CT_TRY(take_frames(link, plain, length));
    }
    return CT_OK;
}

static enum ct_err receive(struct ct_link *link, const void *data, size_t length) {
    link->received_bytes += length;
    if (link->state == LINK_CLOSING || link->state == LINK_CLOSED) {
        return CT_OK;
    }
    CT_TRY(ct_tls_feed(link->tls, data, length));
    if (link->state == LINK_HANDSHAKE) {
        bool done;
        CT_TRY(ct_tls_handshake(link->tls, &done));
        if (!done) {
            return flush_out(link);
        }
        CT_TRY(flush_out(link));
        uv_timer_stop(&link->timer);
        link->state = LINK_OPEN;
        link->events.opened(link->user, link, ct_tls_peer_key(link->tls));
    }
    CT_TRY(read_frames(link));
    /* After ct_link_close the socket's direction has ended: nothing more may be queued. */
    return link->state == LINK_OPEN ? flush_out(link) : CT_OK;
}

static void on_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *out) {
    (void)handle;
    (void)suggested;
    /* libuv reads and calls on_read before it asks for the next buffer. */
    static _Thread_local char bytes[READ_BYTES];
    *out = uv_buf_init(bytes, sizeof bytes);
}

static void on_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer) {
    struct ct_link *link = stream->data;
    if (length > 0) {
        enum ct_err err = receive(link, buffer->base, (size_t)length);
        if (err != CT_OK) {
            char detail[256];
            snprintf(detail, sizeof detail, "%s", ct_err_detail());
            close_gently(link, err, detail);
        }
    } else if (length == UV_EOF) {
        link->ended = true;
        if (link->state == LINK_OPEN) {
            close_gently(link, CT_ERR_NETWORK, "the other side closed the connection");
        } else if (link->state != LINK_CLOSING || link->queued_bytes == 0) {
            close_now(link, CT_ERR_NETWORK,
                      "the other side closed the connection during the handshake");
        }
    } else if (length < 0) {
        close_now(link, CT_ERR_NETWORK, uv_strerror((int)length));
    }
}

static enum ct_err start_handshake(struct ct_link *link) {
    link->state = LINK_HANDSHAKE;
    uv_tcp_nodelay(&link->tcp, 1);
    int status = uv_read_start((uv_stream_t *)&link->tcp, on_buffer, on_read);
    if (status < 0) {
        return ct_fail(CT_ERR_NETWORK, "%s", uv_strerror(status));
    }
    bool done;
    CT_TRY(ct_tls_handshake(link->tls, &done));
    return flush_out(link);
}

static void on_connected(uv_connect_t *request, int status) {
    struct ct_link *link = request->data;
    if (link->state != LINK_CONNECTING) {
        return;
    }
    if (status == 0) {
        enum ct_err err = start_handshake(link);
        if (err != CT_OK) {
            close_now(link, err, ct_err_detail());
        }
        return;
    }
    if (link->next_address != NULL) {
        link->tcp_retry = true;
        uv_close((uv_handle_t *)&link->tcp, on_tcp_closed);
        return;
    }
    char detail[400];
    snprintf(detail, sizeof detail, "%s does not answer: %s", link->peer_name, uv_strerror(status));
    close_now(link, CT_ERR_NETWORK, detail);
}

static void try_next_address(struct ct_link *link) {
    const struct addrinfo *address = link->next_address;
    CT_ASSERT(address != NULL);
    link->next_address = address->ai_next;
    int status = uv_tcp_init(link->loop, &link->tcp);
    if (status == 0) {
        link->tcp.data = link;
        link->tcp_made = true;
        link->connecting.data = link;
        status = uv_tcp_connect(&link->connecting, &link->tcp, address->ai_addr, on_connected);
    }
    if (status == 0) {
        return;
    }
    if (link->next_address != NULL && link->tcp_made) {
        link->tcp_retry = true;
        uv_close((uv_handle_t *)&link->tcp, on_tcp_closed);
    } else {
        close_now(link, CT_ERR_NETWORK, uv_strerror(status));
    }
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *addresses) {
    struct ct_link *link = request->data;
    link->resolving_now = false;
    link->addresses = addresses;
    if (link->state == LINK_CLOSED) {
        free_if_done(link);
    } else if (status < 0) {
        char detail[400];
        snprintf(detail, sizeof detail, "%s: %s", link->peer_name, uv_strerror(status));
        close_now(link, CT_ERR_NETWORK, detail);
    } else {
        link->next_address = addresses;
        try_next_address(link);
    }
}

/* A link with its timer running; on failure nothing is owned. */
static struct ct_link *make_link(uv_loop_t *loop, struct ct_tls_context *context,
                                 const struct ct_hash *expected,
                                 const struct ct_link_events *events) {
    struct ct_link *link = calloc(1, sizeof *link);
    if (link == NULL || ct_tls_open(context, expected, &link->tls) != CT_OK) {
        free(link);
        return NULL;
    }
    link->loop = loop;
    link->events = *events;
    ct_frame_reader_init(&link->reader, CT_FRAME_BYTES_MAX_EARLY);
    uv_timer_init(loop, &link->timer);
    link->timer.data = link;
    link->timer_made = true;
    uv_timer_start(&link->timer, on_timer, OPEN_TIME_MS, 0);
    return link;
}

enum ct_err ct_link_connect(uv_loop_t *loop, const char *host, uint16_t port,
                            const struct ct_key *key, const struct ct_hash *expected,
                            const struct ct_link_events *events, void *user, struct ct_link **out) {
    struct ct_tls_context *context;
    CT_TRY(ct_tls_context_open(false, key, &context));
    struct ct_link *link = make_link(loop, context, expected, events);
    ct_tls_context_close(context);
    if (link == NULL) {
        return ct_fail(CT_ERR_MEMORY, "out of memory for a link");
    }
    link->user = user;
    link->state = LINK_CONNECTING;
    snprintf(link->peer_name, sizeof link->peer_name, "%s port %u", host, port);
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    link->resolving.data = link;
    int status = uv_getaddrinfo(loop, &link->resolving, on_resolved, host, service, &hints);
    if (status < 0) {
        /* The timer's handle must still close; nobody is told, because the call fails. */
        link->events.closed = NULL;
        close_now(link, CT_ERR_NETWORK, "");
        return ct_fail(CT_ERR_NETWORK, "%s: %s", host, uv_strerror(status));
    }
    link->resolving_now = true;
    *out = link;
    return CT_OK;
}

static void on_stranger_closed(uv_handle_t *handle) {
    free(handle);
}

/* Takes a connection off the queue only to close it. */
static void turn_away(struct ct_link_server *server) {
    uv_tcp_t *tcp = malloc(sizeof *tcp);
    if (tcp == NULL || uv_tcp_init(server->tcp.loop, tcp) < 0) {
        free(tcp);
        return;
    }
    uv_accept((uv_stream_t *)&server->tcp, (uv_stream_t *)tcp);
    uv_close((uv_handle_t *)tcp, on_stranger_closed);
    uint64_t now_ms = uv_now(server->tcp.loop);
    if (server->refused_logged_ms == 0 || now_ms - server->refused_logged_ms > REFUSED_LOG_MS) {
        server->refused_logged_ms = now_ms;
        ct_log(CT_LOG_WARN, "link", "a connection was turned away: %u of %u are open",
               server->link_count, server->links_max);
    }
}

static void on_connection(uv_stream_t *listener, int status) {
    struct ct_link_server *server = listener->data;
    if (status < 0) {
        ct_log(CT_LOG_WARN, "link", "a connection could not be accepted: %s", uv_strerror(status));
        return;
    }
    if (server->link_count >= server->links_max) {
        turn_away(server);
        return;
    }
    struct ct_link *link = make_link(listener->loop, server->tls, NULL, &server->events);
    if (link == NULL) {
        turn_away(server);
        return;
    }
    link->server = server;
    link->next = server->links;
    if (link->next != NULL) {
        link->next->previous = link;
    }
    server->links = link;
    server->link_count++;
    link->events.closed = NULL;
    if (uv_tcp_init(link->loop, &link->tcp) < 0) {
        close_now(link, CT_ERR_NETWORK, "");
        return;
    }
    link->tcp.data = link;
    link->tcp_made = true;
    if (uv_accept(listener, (uv_stream_t *)&link->tcp) < 0) {
        close_now(link, CT_ERR_NETWORK, "");
        return;
    }
    link->user = server->accept(server->user, link);
    if (link->user == NULL) {
        close_now(link, CT_ERR_REFUSED, "");
        return;
    }
    link->events.closed = server->events.closed;
    enum ct_err err = start_handshake(link);
    if (err != CT_OK) {
        close_now(link, err, ct_err_detail());
    }
}

static void on_listener_closed(uv_handle_t *handle) {
    struct ct_link_server *server = handle->data;
    server->listening = false;
    server_free_if_done(server);
}

static void server_free_if_done(struct ct_link_server *server) {
    if (server->closing && !server->listening && server->links == NULL) {
        ct_tls_context_close(server->tls);
        free(server);
    }
}

static int bind_and_listen(struct ct_link_server *server, const char *host, uint16_t port,
                           uint16_t *out_port) {
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    uv_getaddrinfo_t request;
    int status = uv_getaddrinfo(server->tcp.loop, &request, NULL, host, service, &hints);
    if (status < 0) {
        return status;
    }
    status = uv_tcp_bind(&server->tcp, request.addrinfo->ai_addr, 0);
    uv_freeaddrinfo(request.addrinfo);
    if (status == 0) {
        status = uv_listen((uv_stream_t *)&server->tcp, BACKLOG, on_connection);
    }
    struct sockaddr_storage name;
    int length = sizeof name;
    if (status == 0) {
        status = uv_tcp_getsockname(&server->tcp, (struct sockaddr *)&name, &length);
    }
    if (status == 0) {
        *out_port = ntohs(name.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&name)->sin6_port
                                                     : ((struct sockaddr_in *)&name)->sin_port);
    }
    return status;
}

enum ct_err ct_link_listen(uv_loop_t *loop, const char *host, uint16_t port,
                           const struct ct_key *key, uint32_t links_max,
                           void *(*accept)(void *user, struct ct_link *link),
                           const struct ct_link_events *events, void *user,
                           struct ct_link_server **out, uint16_t *out_port) {
    struct ct_link_server *server = calloc(1, sizeof *server);
    if (server == NULL) {
        return ct_fail(CT_ERR_MEMORY, "out of memory for a listener");
    }
    enum ct_err err = ct_tls_context_open(true, key, &server->tls);
    if (err != CT_OK) {
        free(server);
        return err;
    }
    server->accept = accept;
    server->events = *events;
    server->user = user;
    server->links_max = links_max;
    int status = uv_tcp_init(loop, &server->tcp);
    if (status < 0) {
        ct_tls_context_close(server->tls);
        free(server);
        return ct_fail(CT_ERR_NETWORK, "no socket: %s", uv_strerror(status));
    }
    server->tcp.data = server;
    server->listening = true;
    status = bind_and_listen(server, host, port, out_port);
    if (status < 0) {
        ct_link_server_close(server);
        return ct_fail(CT_ERR_NETWORK, "cannot listen on %s port %u: %s", host, port,
                       uv_strerror(status));
    }
    *out = server;
    return CT_OK;
}

void ct_link_server_close(struct ct_link_server *server) {
    server->closing = true;
    uv_close((uv_handle_t *)&server->tcp, on_listener_closed);
    for (struct ct_link *link = server->links; link != NULL; link = link->next) {
        close_gently(link, CT_OK, "the server ends");
    }
}

enum ct_err ct_link_send(struct ct_link *link, struct ct_bytes frame) {
    if (link->state != LINK_OPEN) {
        return ct_fail(CT_ERR_STATE, "the link is not open");
    }
    if (link->queued_bytes + frame.length > SEND_BYTES_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "%zu bytes wait to be sent already", link->queued_bytes);
    }
    uint8_t header[4];
    ct_frame_header(frame.length, header);
    CT_TRY(ct_tls_write(link->tls, header, sizeof header));
    CT_TRY(ct_tls_write(link->tls, frame.data, frame.length));
    return flush_out(link);
}

size_t ct_link_queued_bytes(const struct ct_link *link) {
    return link->queued_bytes;
}

void ct_link_frame_max(struct ct_link *link, size_t maximum) {
    link->reader.maximum = maximum;
}

void ct_link_traffic(const struct ct_link *link, uint64_t *out_received, uint64_t *out_sent) {
    *out_received = link->received_bytes;
    *out_sent = link->sent_bytes;
}

void ct_link_close(struct ct_link *link, enum ct_err why, const char *detail) {
    close_gently(link, why, detail);
}
