/* Reading over HTTP (http.h of include/cotrain has the paths): the checkpoint, tiles and bundles,
 * blobs, and what the run's status page shows. Threads of its own; it reads files only, by
 * descriptor, and never touches the run's state. */
#ifndef COORDINATOR_HTTP_H
#define COORDINATOR_HTTP_H

#include <cotrain/buf.h>

struct ct_http;

struct ct_http_options {
    const char *ledger_dir, *blobs_dir;
    const char *host; /* address or name to listen on */
    uint16_t port;    /* 0: any free one */
};

/* On failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_http_open(const struct ct_http_options *options, struct ct_http **out,
                                       uint16_t *out_port);
/* Takes no new connections, ends the others and the threads. */
void ct_http_close(struct ct_http *http);

/* Replaces what "/" and "/status.json" answer; copied. Any thread. */
void ct_http_show(struct ct_http *http, const char *page, const char *json);
/* Bytes of bodies that were asked for so far. */
uint64_t ct_http_sent_bytes(const struct ct_http *http);

/* What a URL's path names. The file is below the ledger's or the store's directory. */
enum ct_http_kind {
    CT_HTTP_NOTHING,
    CT_HTTP_PAGE,
    CT_HTTP_STATUS,
    CT_HTTP_NOTE, /* the checkpoint */
    CT_HTTP_TILE,
    CT_HTTP_BLOB,
};
#define CT_HTTP_FILE_MAX 128u
/* Takes exactly the paths that there can be; file[CT_HTTP_FILE_MAX] receives the relative path, for
 * a blob its 64 digits with a slash after the second. */
enum ct_http_kind ct_http_route(const char *path, char *file);

/* Judges a Range header against a length: 200 (all of it), 206 with the range, or 416. Only one
 * range of bytes is understood; anything else is answered with all of it. */
unsigned ct_http_range(const char *header, uint64_t length, uint64_t *out_first,
                       uint64_t *out_count);

#endif
