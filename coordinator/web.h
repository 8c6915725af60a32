/* Reading over HTTP (http.h of include/cotrain has the paths): the checkpoint, tiles and bundles,
 * blobs, and what the run's status page shows. Threads of its own; it reads files only, by
 * descriptor, and never touches the run's state. */
#ifndef COORDINATOR_WEB_H
#define COORDINATOR_WEB_H

#include <cotrain/buf.h>

struct ct_web;

/* Answers what is no file: a status, with the body in `out` (empty: a word of its own). HEAD comes
 * as "GET". In threads of the server's own. */
typedef unsigned (*ct_web_answer)(void *user, const char *method, const char *path,
                                  struct ct_bytes body, struct ct_buf *out, const char **out_type);

struct ct_web_options {
    const char *ledger_dir, *blobs_dir; /* NULL with `answer` */
    const char *profiles_dir;           /* NULL: none are shown */
    ct_web_answer answer;               /* NULL: files are served; else everything goes there */
    void *user;
    size_t body_max;  /* of a request; a longer one is answered with 413 */
    const char *host; /* address or name to listen on */
    uint16_t port;    /* 0: any free one */
};

/* On failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_web_open(const struct ct_web_options *options, struct ct_web **out,
                                      uint16_t *out_port);
/* Takes no new connections, ends the others and the threads. */
void ct_web_close(struct ct_web *web);

/* Replaces what "/" and "/status.json" answer; copied. Any thread. */
void ct_web_show(struct ct_web *web, const char *page, const char *json);
/* Bytes of bodies that were asked for so far. */
uint64_t ct_web_sent_bytes(const struct ct_web *web);

/* What a URL's path names. The file is below the ledger's or the store's directory. */
enum ct_web_kind {
    CT_WEB_NOTHING,
    CT_WEB_PAGE,
    CT_WEB_STATUS,
    CT_WEB_NOTE, /* a signed checkpoint */
    CT_WEB_KEPT, /* which checkpoints are kept */
    CT_WEB_TILE,
    CT_WEB_BLOB,
    CT_WEB_PROFILE, /* a volunteer's record, which may be deleted */
};
#define CT_WEB_FILE_MAX 128u
/* Takes exactly the paths that there can be; file[CT_WEB_FILE_MAX] receives the relative path, for
 * a blob its 64 digits with a slash after the second. */
enum ct_web_kind ct_web_route(const char *path, char *file);

/* Judges a Range header against a length: 200 (all of it), 206 with the range, or 416. Only one
 * range of bytes is understood; anything else is answered with all of it. */
unsigned ct_web_range(const char *header, uint64_t length, uint64_t *out_first,
                      uint64_t *out_count);

#endif
