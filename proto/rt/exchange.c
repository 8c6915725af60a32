#include <cotrain/exchange.h>

#include <cotrain/assert.h>

#include <curl/curl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct ct_exchange {
    CURL *curl;
    struct curl_slist *headers;
    uint32_t timeout_ms;
    bool (*cancelled)(void *user);
    void *user;
    struct ct_buf *out;
    enum ct_err failed; /* of the body's arrival */
    char error[CURL_ERROR_SIZE];
};

static pthread_once_t global_once = PTHREAD_ONCE_INIT;

static void global_init(void) {
    CT_ASSERT(curl_global_init(CURL_GLOBAL_DEFAULT) == 0);
}

enum ct_err ct_exchange_open(uint32_t timeout_ms, bool (*cancelled)(void *user), void *user,
                             struct ct_exchange **out) {
    pthread_once(&global_once, global_init);
    struct ct_exchange *exchange = calloc(1, sizeof *exchange);
    if (exchange != NULL) {
        exchange->curl = curl_easy_init();
        /* A witness answers at once; it need not be asked whether it wants the body. */
        exchange->headers = curl_slist_append(NULL, "Expect:");
    }
    if (exchange == NULL || exchange->curl == NULL || exchange->headers == NULL) {
        ct_exchange_close(exchange);
        return ct_fail(CT_ERR_MEMORY, "no memory for an exchange over HTTP");
    }
    exchange->timeout_ms = timeout_ms;
    exchange->cancelled = cancelled;
    exchange->user = user;
    *out = exchange;
    return CT_OK;
}

void ct_exchange_close(struct ct_exchange *exchange) {
    if (exchange == NULL) {
        return;
    }
    curl_slist_free_all(exchange->headers);
    curl_easy_cleanup(exchange->curl);
    free(exchange);
}

static size_t on_body(char *data, size_t size, size_t count, void *user) {
    struct ct_exchange *exchange = user;
    exchange->failed = ct_buf_append(exchange->out, data, size * count);
    return exchange->failed == CT_OK ? size * count : 0;
}

static int on_progress(void *user, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d) {
    (void)a, (void)b, (void)c, (void)d;
    struct ct_exchange *exchange = user;
    return exchange->cancelled != NULL && exchange->cancelled(exchange->user);
}

/* Loopback needs no proxy, and none could reach ours. */
static bool is_loopback(const char *url) {
    CURLU *parsed = curl_url();
    char *host = NULL;
    bool loopback = parsed != NULL && curl_url_set(parsed, CURLUPART_URL, url, 0) == CURLUE_OK &&
                    curl_url_get(parsed, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
                    (strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 ||
                     strcmp(host, "[::1]") == 0);
    curl_free(host);
    curl_url_cleanup(parsed);
    return loopback;
}

static void configure(struct ct_exchange *exchange, const char *url, const struct ct_bytes *body) {
    CURL *curl = exchange->curl;
    /* Keeps connections, forgets options. */
    curl_easy_reset(curl);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "cotrain");
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)exchange->timeout_ms);
    if (is_loopback(url)) {
        curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    }
    if (body != NULL) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->length);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, (const char *)body->data);
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, exchange->headers);
    }
    exchange->error[0] = '\0';
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, exchange->error);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, exchange);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, exchange);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
}

enum ct_err ct_exchange_run(struct ct_exchange *exchange, const char *url,
                            const struct ct_bytes *body, unsigned *out_status, struct ct_buf *out) {
    if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0) {
        return ct_fail(CT_ERR_CONFIG, "'%.200s' does not begin with http:// or https://", url);
    }
    ct_buf_clear(out);
    exchange->out = out;
    exchange->failed = CT_OK;
    configure(exchange, url, body);
    CURLcode code = curl_easy_perform(exchange->curl);
    if (code == CURLE_OK) {
        long status = 0;
        curl_easy_getinfo(exchange->curl, CURLINFO_RESPONSE_CODE, &status);
        *out_status = (unsigned)status;
        return CT_OK;
    }
    ct_buf_clear(out);
    if (exchange->failed != CT_OK) {
        return ct_fail(exchange->failed, "%s: the answer is longer than the %zu bytes allowed", url,
                       out->maximum);
    }
    const char *why = exchange->error[0] != '\0' ? exchange->error : curl_easy_strerror(code);
    return ct_fail(code == CURLE_ABORTED_BY_CALLBACK ? CT_ERR_STATE
                   : code == CURLE_URL_MALFORMAT     ? CT_ERR_CONFIG
                                                     : CT_ERR_NETWORK,
                   "%s: %s", url, why);
}
