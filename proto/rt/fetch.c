#include <cotrain/fetch.h>

#include <cotrain/assert.h>
#include <cotrain/http.h>
#include <cotrain/limits.h>
#include <cotrain/log.h>

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Blobs up to this size are held in memory; larger ones go through a file and can be resumed. */
#define IN_MEMORY_MAX (4u << 20)
#define TRIES_MAX     4 /* of one base, as long as each brings something */

struct base {
    char url[CT_FETCH_URL_MAX]; /* without a last slash */
    bool https;
    bool loopback; /* no proxy is asked for these */
};

struct ct_fetch {
    struct ct_fetch_options options;
    CURL *curl;
    char error[CURL_ERROR_SIZE];
    uint64_t received;
    uint32_t base_count;
    uint32_t preferred; /* the base that answered last */
    struct base bases[CT_FETCH_BASES_MAX];
};

/* One transfer's destination: a buffer or a file. */
struct transfer {
    struct ct_fetch *fetch;
    struct ct_buf *buf;
    int fd;
    uint64_t offset;  /* where the body that arrives is to start; 0 without a range */
    uint64_t written; /* end of what the file holds, or length of the buffer */
    uint64_t skip;    /* of the body, bytes that a buffer does not want */
    uint64_t maximum;
    uint64_t range_start; /* as the answer says */
    bool started;
    enum ct_err failed;
};

static pthread_once_t global_once = PTHREAD_ONCE_INIT;

static void global_init(void) {
    CT_ASSERT(curl_global_init(CURL_GLOBAL_DEFAULT) == 0);
}

static enum ct_err base_parse(const char *text, struct base *out) {
    enum ct_err err = CT_ERR_CONFIG;
    char *scheme = NULL;
    char *host = NULL;
    CURLU *url = curl_url();
    CT_ASSERT(url != NULL);
    size_t length = strlen(text);
    while (length > 0 && text[length - 1] == '/') {
        length--;
    }
    if (length == 0 || length >= sizeof out->url || strchr(text, '?') || strchr(text, '#')) {
        err = ct_fail(CT_ERR_CONFIG, "'%.200s' is no base URL of a coordinator or mirror", text);
        goto out;
    }
    memcpy(out->url, text, length);
    out->url[length] = '\0';
    if (curl_url_set(url, CURLUPART_URL, out->url, 0) != CURLUE_OK ||
        curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
        curl_url_get(url, CURLUPART_HOST, &host, 0) != CURLUE_OK) {
        err = ct_fail(CT_ERR_CONFIG, "'%.200s' is no URL", text);
        goto out;
    }
    out->https = strcmp(scheme, "https") == 0;
    if (!out->https && strcmp(scheme, "http") != 0) {
        err = ct_fail(CT_ERR_CONFIG, "'%.200s' must begin with http:// or https://", text);
        goto out;
    }
    out->loopback = strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 ||
                    strcmp(host, "[::1]") == 0;
    err = CT_OK;
out:
    curl_free(scheme);
    curl_free(host);
    curl_url_cleanup(url);
    return err;
}

enum ct_err ct_fetch_check_base(const char *base) {
    struct base parsed;
    pthread_once(&global_once, global_init);
    return base_parse(base, &parsed);
}

enum ct_err ct_fetch_open(const char *const *bases, uint32_t count,
                          const struct ct_fetch_options *options, struct ct_fetch **out) {
    pthread_once(&global_once, global_init);
    if (count == 0 || count > CT_FETCH_BASES_MAX) {
        return ct_fail(CT_ERR_CONFIG, "between 1 and %u base URLs are needed, not %u",
                       CT_FETCH_BASES_MAX, count);
    }
    struct ct_fetch *fetch = calloc(1, sizeof *fetch);
    if (fetch == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a download");
    }
    if (options != NULL) {
        fetch->options = *options;
    }
    for (uint32_t i = 0; i < count; i++) {
        enum ct_err err = base_parse(bases[i], &fetch->bases[i]);
        if (err != CT_OK) {
            free(fetch);
            return err;
        }
    }
    fetch->base_count = count;
    fetch->curl = curl_easy_init();
    if (fetch->curl == NULL) {
        free(fetch);
        return ct_fail(CT_ERR_MEMORY, "no memory for a download");
    }
    *out = fetch;
    return CT_OK;
}

void ct_fetch_close(struct ct_fetch *fetch) {
    if (fetch == NULL) {
        return;
    }
    curl_easy_cleanup(fetch->curl);
    free(fetch);
}

uint32_t ct_fetch_bases(const struct ct_fetch *fetch) {
    return fetch->base_count;
}

uint64_t ct_fetch_received(const struct ct_fetch *fetch) {
    return fetch->received;
}

/* Says where the body starts in the resource: 0 for 200, Content-Range for 206. */
static size_t on_header(char *data, size_t size, size_t count, void *user) {
    struct transfer *transfer = user;
    size_t length = size * count;
    static const char name[] = "content-range: bytes ";
    char text[64];
    if (length > sizeof name - 1 && strncasecmp(data, name, sizeof name - 1) == 0) {
        size_t rest = length - (sizeof name - 1);
        rest = rest < sizeof text - 1 ? rest : sizeof text - 1;
        memcpy(text, data + sizeof name - 1, rest);
        text[rest] = '\0';
        transfer->range_start = strtoull(text, NULL, 10);
    }
    return length;
}

static bool transfer_begin(struct transfer *transfer) {
    long status = 0;
    curl_easy_getinfo(transfer->fetch->curl, CURLINFO_RESPONSE_CODE, &status);
    transfer->started = true;
    if (status == 206 && transfer->offset > 0 && transfer->range_start == transfer->offset) {
        return true;
    }
    if (status != 200) {
        return false;
    }
    /* The server does not do ranges: a buffer leaves the start out, a file is written again. */
    if (transfer->fd < 0) {
        transfer->skip = transfer->offset;
        return true;
    }
    transfer->offset = 0;
    transfer->written = 0;
    if ((ftruncate(transfer->fd, 0) != 0 || lseek(transfer->fd, 0, SEEK_SET) != 0)) {
        transfer->failed = ct_fail(CT_ERR_IO, "cannot rewind a download: %s", strerror(errno));
        return false;
    }
    return true;
}

static size_t on_body(char *data, size_t size, size_t count, void *user) {
    struct transfer *transfer = user;
    size_t length = size * count;
    if (!transfer->started && !transfer_begin(transfer)) {
        return 0;
    }
    transfer->fetch->received += length;
    size_t skipped = transfer->skip < length ? (size_t)transfer->skip : length;
    transfer->skip -= skipped;
    data += skipped;
    size_t wanted = length - skipped;
    if (wanted > transfer->maximum - transfer->written) {
        transfer->failed = ct_fail(CT_ERR_TOO_LARGE,
                                   "an answer is longer than the %llu bytes "
                                   "allowed for it",
                                   (unsigned long long)transfer->maximum);
        return 0;
    }
    if (transfer->buf != NULL) {
        transfer->failed = ct_buf_append(transfer->buf, data, wanted);
        if (transfer->failed != CT_OK) {
            return 0;
        }
    } else {
        for (size_t done = 0; done < wanted;) {
            ssize_t n = write(transfer->fd, data + done, wanted - done);
            if (n < 0 && errno == EINTR) {
                continue;
            }
            if (n <= 0) {
                transfer->failed =
                    ct_fail(CT_ERR_IO, "cannot write a download: %s", strerror(errno));
                return 0;
            }
            done += (size_t)n;
        }
    }
    transfer->written += wanted;
    return length;
}

static int on_progress(void *user, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d) {
    (void)a, (void)b, (void)c, (void)d;
    struct ct_fetch *fetch = user;
    return fetch->options.cancelled != NULL && fetch->options.cancelled(fetch->options.user);
}

static void configure(struct ct_fetch *fetch, const struct base *base, const char *url,
                      struct transfer *transfer) {
    CURL *curl = fetch->curl;
    const struct ct_fetch_options *options = &fetch->options;
    /* Keeps connections, forgets options. */
    curl_easy_reset(curl);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, base->https ? "https" : "http,https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(curl, CURLOPT_MAXREDIRS, 3L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "cotrain");
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS,
                     options->connect_timeout_ms ? (long)options->connect_timeout_ms : 10000L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME,
                     options->stall_timeout_s ? (long)options->stall_timeout_s : 30L);
    if (base->loopback) {
        curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    }
    fetch->error[0] = '\0';
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, fetch->error);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, transfer);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, transfer);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, fetch);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
}

/* One request to one base. */
static enum ct_err transfer_run(struct ct_fetch *fetch, uint32_t base, const char *path,
                                struct transfer *transfer) {
    char url[CT_FETCH_URL_MAX + 256];
    int length = snprintf(url, sizeof url, "%s/%s", fetch->bases[base].url, path);
    CT_ASSERT(length > 0 && (size_t)length < sizeof url);
    transfer->fetch = fetch;
    transfer->started = false;
    transfer->failed = CT_OK;
    transfer->range_start = 0;
    configure(fetch, &fetch->bases[base], url, transfer);
    char range[32];
    if (transfer->offset > 0) {
        snprintf(range, sizeof range, "%llu-", (unsigned long long)transfer->offset);
        curl_easy_setopt(fetch->curl, CURLOPT_RANGE, range);
    }
    CURLcode code = curl_easy_perform(fetch->curl);
    if (transfer->failed != CT_OK) {
        return transfer->failed;
    }
    long status = 0;
    curl_easy_getinfo(fetch->curl, CURLINFO_RESPONSE_CODE, &status);
    if (code == CURLE_ABORTED_BY_CALLBACK) {
        return ct_fail(CT_ERR_STATE, "the download of %s was cancelled", url);
    }
    if (status == 404 || status == 410) {
        return ct_fail(CT_ERR_NOT_FOUND, "%s: HTTP status %ld", url, status);
    }
    if (status != 0 && status != 200 && status != 206) {
        return ct_fail(CT_ERR_NETWORK, "%s: HTTP status %ld", url, status);
    }
    if (code != CURLE_OK) {
        return ct_fail(CT_ERR_NETWORK, "%s: %s", url,
                       fetch->error[0] != '\0' ? fetch->error : curl_easy_strerror(code));
    }
    if (!transfer->started && !transfer_begin(transfer)) {
        return ct_fail(CT_ERR_NETWORK, "%s: an answer for another range", url);
    }
    return CT_OK;
}

enum ct_err ct_fetch_get_rest(struct ct_fetch *fetch, uint32_t base, const char *path,
                              uint64_t offset, struct ct_buf *out) {
    CT_ASSERT(base < fetch->base_count);
    ct_buf_clear(out);
    struct transfer transfer = {.buf = out, .fd = -1, .offset = offset, .maximum = out->maximum};
    enum ct_err err = transfer_run(fetch, base, path, &transfer);
    if (err != CT_OK) {
        ct_buf_clear(out);
    }
    return err;
}

enum ct_err ct_fetch_get_from(struct ct_fetch *fetch, uint32_t base, const char *path,
                              struct ct_buf *out) {
    return ct_fetch_get_rest(fetch, base, path, 0, out);
}

enum ct_err ct_fetch_get(struct ct_fetch *fetch, const char *path, struct ct_buf *out) {
    enum ct_err err = CT_OK;
    enum ct_err worst = CT_ERR_NOT_FOUND;
    for (uint32_t i = 0; i < fetch->base_count; i++) {
        uint32_t base = (fetch->preferred + i) % fetch->base_count;
        err = ct_fetch_get_from(fetch, base, path, out);
        if (err == CT_OK) {
            fetch->preferred = base;
            return CT_OK;
        }
        if (err == CT_ERR_STATE) {
            return err;
        }
        if (err != CT_ERR_NOT_FOUND) {
            worst = err;
        }
    }
    return worst;
}

static enum ct_err blob_in_memory(struct ct_fetch *fetch, uint32_t base, const char *path,
                                  const struct ct_blob_ref *ref, const struct ct_blobs *store) {
    struct ct_buf buf;
    ct_buf_init(&buf, (size_t)ref->length);
    enum ct_err err = ct_fetch_get_from(fetch, base, path, &buf);
    if (err == CT_OK) {
        struct ct_hash got = ct_sha256(ct_buf_bytes(&buf));
        if (buf.length != ref->length || !ct_hash_equal(&got, &ref->sha256)) {
            err = ct_fail(CT_ERR_DIGEST, "%s/%s is not the blob of that digest",
                          fetch->bases[base].url, path);
        } else {
            struct ct_blob_ref stored;
            err = ct_blobs_put(store, ct_buf_bytes(&buf), &stored);
        }
    }
    ct_buf_deinit(&buf);
    return err;
}

/* Continues `part` until it has the blob's length; each try must bring something. */
static enum ct_err blob_download(struct ct_fetch *fetch, uint32_t base, const char *path,
                                 const struct ct_blob_ref *ref, int fd) {
    enum ct_err err = CT_OK;
    for (int tries = 0; tries < TRIES_MAX; tries++) {
        off_t end = lseek(fd, 0, SEEK_END);
        if (end < 0) {
            return ct_fail(CT_ERR_IO, "cannot read a partial download: %s", strerror(errno));
        }
        uint64_t have = (uint64_t)end;
        if (have == ref->length) {
            return CT_OK;
        }
        struct transfer transfer = {
            .fd = fd, .offset = have, .written = have, .maximum = ref->length};
        err = transfer_run(fetch, base, path, &transfer);
        if (err == CT_OK && transfer.written < ref->length) {
            err = ct_fail(CT_ERR_NETWORK, "%s/%s ended after %llu of %llu bytes",
                          fetch->bases[base].url, path, (unsigned long long)transfer.written,
                          (unsigned long long)ref->length);
        }
        if (err == CT_OK) {
            return CT_OK;
        }
        if (err != CT_ERR_NETWORK || transfer.written <= have) {
            return err;
        }
    }
    return err;
}

static enum ct_err file_digest(int fd, struct ct_hash *out) {
    static const size_t block = 1u << 18;
    uint8_t *bytes = malloc(block);
    if (bytes == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory to check a download");
    }
    struct ct_sha256 sha;
    ct_sha256_init(&sha);
    off_t at = 0;
    ssize_t n = 0;
    while ((n = pread(fd, bytes, block, at)) > 0) {
        ct_sha256_update(&sha, bytes, (size_t)n);
        at += n;
    }
    int cause = errno;
    free(bytes);
    *out = ct_sha256_final(&sha);
    return n == 0 ? CT_OK : ct_fail(CT_ERR_IO, "cannot read a download back: %s", strerror(cause));
}

/* Downloads into `fd` and checks; a wrong digest of something that was begun earlier (perhaps by
 * another mirror) is tried once more from the start. */
static enum ct_err blob_complete(struct ct_fetch *fetch, uint32_t base, const char *path,
                                 const struct ct_blob_ref *ref, int fd) {
    off_t before = lseek(fd, 0, SEEK_END);
    for (;;) {
        CT_TRY(blob_download(fetch, base, path, ref, fd));
        struct ct_hash got;
        CT_TRY(file_digest(fd, &got));
        if (ct_hash_equal(&got, &ref->sha256)) {
            return CT_OK;
        }
        if (ftruncate(fd, 0) != 0) {
            return ct_fail(CT_ERR_IO, "cannot cut a download: %s", strerror(errno));
        }
        if (before == 0) {
            return ct_fail(CT_ERR_DIGEST, "%s/%s is not the blob of that digest",
                           fetch->bases[base].url, path);
        }
        before = 0;
    }
}

static enum ct_err blob_through_file(struct ct_fetch *fetch, uint32_t base, const char *path,
                                     const struct ct_blob_ref *ref, const struct ct_blobs *store) {
    char part[sizeof store->dir + CT_HEX_BYTES + 8];
    char hex[CT_HEX_BYTES];
    ct_hash_hex(&ref->sha256, hex);
    snprintf(part, sizeof part, "%s/%s.part", store->dir, hex);
    int fd = open(part, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) {
        return ct_fail(CT_ERR_IO, "cannot write %s: %s", part, strerror(errno));
    }
    enum ct_err err = CT_OK;
    struct stat info;
    if (fstat(fd, &info) != 0 || ((uint64_t)info.st_size > ref->length && ftruncate(fd, 0) != 0)) {
        err = ct_fail(CT_ERR_IO, "cannot use %s: %s", part, strerror(errno));
    } else {
        err = blob_complete(fetch, base, path, ref, fd);
    }
    close(fd);
    if (err == CT_OK) {
        struct ct_blob_ref stored;
        err = ct_blobs_import(store, part, &stored);
        unlink(part);
    } else if (err == CT_ERR_TOO_LARGE || err == CT_ERR_DIGEST) {
        unlink(part);
    }
    return err;
}

enum ct_err ct_fetch_blob(struct ct_fetch *fetch, const struct ct_blob_ref *ref,
                          const struct ct_blobs *store) {
    if (ref->length > CT_BLOB_BYTES_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "a blob of %llu bytes is over the maximum",
                       (unsigned long long)ref->length);
    }
    if (ct_blobs_have(store, ref)) {
        return CT_OK;
    }
    char hex[CT_HEX_BYTES];
    char path[CT_HEX_BYTES + 16];
    ct_hash_hex(&ref->sha256, hex);
    snprintf(path, sizeof path, "%s/%.2s/%s", CT_HTTP_BLOBS, hex, hex + 2);
    enum ct_err worst = CT_ERR_NOT_FOUND;
    for (uint32_t i = 0; i < fetch->base_count; i++) {
        uint32_t base = (fetch->preferred + i) % fetch->base_count;
        enum ct_err err = ref->length <= IN_MEMORY_MAX
                              ? blob_in_memory(fetch, base, path, ref, store)
                              : blob_through_file(fetch, base, path, ref, store);
        if (err == CT_OK) {
            fetch->preferred = base;
            return CT_OK;
        }
        if (err == CT_ERR_STATE || err == CT_ERR_IO || err == CT_ERR_MEMORY) {
            return err;
        }
        if (err != CT_ERR_NOT_FOUND) {
            ct_log(CT_LOG_WARN, "fetch", "%s", ct_err_detail());
            worst = err;
        }
    }
    return worst;
}
