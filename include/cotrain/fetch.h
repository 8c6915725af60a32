/* Downloads over HTTP: the door to libcurl, and the only file that includes it.
 *
 * A fetch holds base URLs of a coordinator and its mirrors and asks them in turn, the one that
 * answered last first. All calls block; one thread at a time per fetch. Only http and https;
 * a redirect stays inside them and never leads from https to http. */
#ifndef COTRAIN_FETCH_H
#define COTRAIN_FETCH_H

#include <cotrain/blob.h>

#define CT_FETCH_BASES_MAX 16u
#define CT_FETCH_URL_MAX   512u

struct ct_fetch_options {
    uint32_t connect_timeout_ms; /* 0: 10 s */
    uint32_t stall_timeout_s;    /* a transfer without a byte for so long is broken; 0: 30 s */
    /* Asked about once a second and at every arrival; true ends the call with CT_ERR_STATE. May be
     * NULL. */
    bool (*cancelled)(void *user);
    void *user;
};

struct ct_fetch;

/* bases[count]: "http://host:port" with or without a path or a last slash. CT_ERR_CONFIG for
 * another scheme or one that is no URL. On failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_fetch_open(const char *const *bases, uint32_t count,
                                        const struct ct_fetch_options *options,
                                        struct ct_fetch **out);
/* Whether ct_fetch_open would take it; CT_ERR_CONFIG with the reason. */
CT_MUST_CHECK enum ct_err ct_fetch_check_base(const char *base);
/* NULL is allowed. */
void ct_fetch_close(struct ct_fetch *fetch);

/* Replaces out's content by the resource at base/path, at most out->maximum bytes.
 * CT_ERR_NOT_FOUND when every base that answered says 404, CT_ERR_TOO_LARGE, CT_ERR_NETWORK;
 * CT_ERR_STATE when cancelled. On failure out is empty. */
CT_MUST_CHECK enum ct_err ct_fetch_get(struct ct_fetch *fetch, const char *path,
                                       struct ct_buf *out);

/* The same from one base alone (base < ct_fetch_bases), for callers who judge what they get and go
 * on to the next mirror themselves. */
CT_MUST_CHECK enum ct_err ct_fetch_get_from(struct ct_fetch *fetch, uint32_t base, const char *path,
                                            struct ct_buf *out);
/* The same without the resource's first `offset` bytes, which the caller has; they are not sent if
 * the server does ranges. */
CT_MUST_CHECK enum ct_err ct_fetch_get_rest(struct ct_fetch *fetch, uint32_t base, const char *path,
                                            uint64_t offset, struct ct_buf *out);
uint32_t ct_fetch_bases(const struct ct_fetch *fetch);

/* Brings a blob into the store; done at once if it is there. What arrived of a large one stays
 * beside the store (STORE/HEX.part) and the next call goes on behind it. A base that serves other
 * bytes is left for the next; CT_ERR_DIGEST when none has the right ones. */
CT_MUST_CHECK enum ct_err ct_fetch_blob(struct ct_fetch *fetch, const struct ct_blob_ref *ref,
                                        const struct ct_blobs *store);

/* Bytes of bodies received since it was opened. */
uint64_t ct_fetch_received(const struct ct_fetch *fetch);

#endif
