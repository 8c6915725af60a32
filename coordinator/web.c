/* The door to libmicrohttpd. */
#include "web.h"

#include "kept_list.h"

#include <cotrain/log.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <microhttpd.h>

#define THREADS          2u
#define CONNECTIONS_MAX  512u
#define PER_ADDRESS_MAX  128u /* nodes of one site share an address, each with some connections */
#define IDLE_S           30u
#define CONNECTION_BYTES 16384u
#define CACHE_FOR_EVER   "public, max-age=31536000, immutable"

#define ANSWER_BYTES_MAX 16384u

struct ct_web {
    struct MHD_Daemon *daemon;
    ct_web_answer answer;
    void *user;
    size_t body_max;
    int ledger_fd, blobs_fd, profiles_fd;
    pthread_mutex_t lock; /* page and json */
    char *page, *json;
    uint64_t sent_bytes; /* atomic */
};

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status,
                              struct MHD_Response *response) {
    if (response == NULL) {
        return MHD_NO;
    }
    MHD_add_response_header(response, "Access-Control-Allow-Origin", "*");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result answer_text(struct MHD_Connection *connection, unsigned status,
                                   const char *text) {
    struct MHD_Response *response = MHD_create_response_from_buffer(
        strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
    if (response != NULL) {
        MHD_add_response_header(response, "Content-Type", "text/plain; charset=utf-8");
        MHD_add_response_header(response, "Cache-Control", "no-store");
    }
    return answer(connection, status, response);
}

/* The status object is immutable: the loop swaps it, a request copies it. */
static enum MHD_Result answer_status(struct ct_web *web, struct MHD_Connection *connection,
                                     enum ct_web_kind kind) {
    pthread_mutex_lock(&web->lock);
    const char *text = kind == CT_WEB_PAGE ? web->page : web->json;
    struct MHD_Response *response =
        text == NULL ? NULL
                     : MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text,
                                                       MHD_RESPMEM_MUST_COPY);
    pthread_mutex_unlock(&web->lock);
    if (response == NULL) {
        return answer_text(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "not yet\n");
    }
    MHD_add_response_header(response, "Content-Type",
                            kind == CT_WEB_PAGE ? "text/html; charset=utf-8" : "application/json");
    MHD_add_response_header(response, "Cache-Control", "no-store");
    if (kind == CT_WEB_PAGE) {
        MHD_add_response_header(response, "Content-Security-Policy",
                                "default-src 'none'; style-src 'unsafe-inline'");
    }
    return answer(connection, MHD_HTTP_OK, response);
}

static int folder_of(const struct ct_web *web, enum ct_web_kind kind) {
    switch (kind) {
    case CT_WEB_BLOB:
        return web->blobs_fd;
    case CT_WEB_PROFILE:
        return web->profiles_fd;
    default:
        return web->ledger_fd;
    }
}

static void add_headers(struct MHD_Response *response, enum ct_web_kind kind, const char *etag) {
    MHD_add_response_header(response, "Accept-Ranges", "bytes");
    if (kind == CT_WEB_NOTE) {
        MHD_add_response_header(response, "Content-Type", "text/plain; charset=utf-8");
        MHD_add_response_header(response, "Cache-Control", "no-cache");
        return;
    }
    MHD_add_response_header(response, "Content-Type", "application/octet-stream");
    MHD_add_response_header(response, "Cache-Control",
                            kind == CT_WEB_PROFILE ? "no-store" : CACHE_FOR_EVER);
    if (etag[0] != '\0') {
        MHD_add_response_header(response, "ETag", etag);
    }
}

/* Takes fd. */
static enum MHD_Result answer_file(struct ct_web *web, struct MHD_Connection *connection,
                                   enum ct_web_kind kind, const char *etag, int fd,
                                   uint64_t length) {
    uint64_t first, count;
    const char *range =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_RANGE);
    const char *condition =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_IF_RANGE);
    if (condition != NULL && strcmp(condition, etag) != 0) {
        range = NULL;
    }
    unsigned status = ct_web_range(range, length, &first, &count);
    char text[96];
    struct MHD_Response *response;
    if (status == 416) {
        close(fd);
        response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
        snprintf(text, sizeof text, "bytes */%" PRIu64, length);
    } else {
        response = MHD_create_response_from_fd_at_offset64(count, fd, first);
        snprintf(text, sizeof text, "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, first,
                 first + count - 1, length);
        if (response == NULL) {
            close(fd);
        }
    }
    if (response != NULL) {
        add_headers(response, kind, etag);
        if (status != 200) {
            MHD_add_response_header(response, "Content-Range", text);
        }
        if (status != 416) {
            __atomic_fetch_add(&web->sent_bytes, count, __ATOMIC_RELAXED);
        }
    }
    return answer(connection, status, response);
}

static enum MHD_Result serve_file(struct ct_web *web, struct MHD_Connection *connection,
                                  enum ct_web_kind kind, const char *file) {
    char etag[80] = "";
    if (kind == CT_WEB_BLOB) {
        /* The digest names the bytes for ever. */
        snprintf(etag, sizeof etag, "\"%.2s%.62s\"", file, file + 3);
    }
    int fd = openat(folder_of(web, kind), file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        bool missing = fd >= 0 || errno == ENOENT || errno == ENOTDIR || errno == ELOOP;
        if (fd >= 0) {
            close(fd);
        }
        return answer_text(connection, missing ? MHD_HTTP_NOT_FOUND : MHD_HTTP_SERVICE_UNAVAILABLE,
                           missing ? "not here\n" : "not now\n");
    }
    const char *known =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_IF_NONE_MATCH);
    if (etag[0] != '\0' && known != NULL && strcmp(known, etag) == 0) {
        close(fd);
        struct MHD_Response *response =
            MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
        if (response != NULL) {
            add_headers(response, kind, etag);
        }
        return answer(connection, MHD_HTTP_NOT_MODIFIED, response);
    }
    return answer_file(web, connection, kind, etag, fd, (uint64_t)status.st_size);
}

static enum MHD_Result answer_kept(struct ct_web *web, struct MHD_Connection *connection) {
    struct ct_buf list;
    ct_buf_init(&list, CT_KEPT_LIST_BYTES_MAX);
    if (ct_kept_list_write(web->ledger_fd, &list) != CT_OK) {
        ct_buf_deinit(&list);
        return answer_text(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "not now\n");
    }
    struct MHD_Response *response =
        MHD_create_response_from_buffer(list.length, list.data, MHD_RESPMEM_MUST_COPY);
    if (response != NULL) {
        add_headers(response, CT_WEB_NOTE, "");
    }
    ct_buf_deinit(&list);
    return answer(connection, MHD_HTTP_OK, response);
}

/* A request whose body is on its way. */
struct call {
    struct ct_buf body;
    bool too_long;
};

static void end_call(void *user, struct MHD_Connection *connection, void **request,
                     enum MHD_RequestTerminationCode code) {
    (void)user;
    (void)connection;
    (void)code;
    struct call *call = *request;
    if (call != NULL) {
        ct_buf_deinit(&call->body);
        free(call);
    }
}

static enum MHD_Result answer_call(struct ct_web *web, struct MHD_Connection *connection,
                                   const char *url, const char *method, const struct call *call) {
    struct ct_buf out;
    const char *type = "text/plain; charset=utf-8";
    ct_buf_init(&out, ANSWER_BYTES_MAX);
    unsigned status = MHD_HTTP_CONTENT_TOO_LARGE;
    if (!call->too_long) {
        status = web->answer(web->user, method, url, ct_buf_bytes(&call->body), &out, &type);
    }
    if (out.length == 0) {
        /* Nobody reads it but a person. */
        (void)!ct_buf_printf(&out, "%s\n", MHD_get_reason_phrase_for(status));
    }
    struct MHD_Response *response =
        MHD_create_response_from_buffer(out.length, out.data, MHD_RESPMEM_MUST_COPY);
    ct_buf_deinit(&out);
    if (response != NULL) {
        MHD_add_response_header(response, "Content-Type", type);
        MHD_add_response_header(response, "Cache-Control", "no-store");
    }
    return answer(connection, status, response);
}

/* Called once for the head, then for each piece of the body, then for its end. */
static enum MHD_Result on_call(struct ct_web *web, struct MHD_Connection *connection,
                               const char *url, const char *method, const char *data,
                               size_t *data_length, void **request) {
    struct call *call = *request;
    if (call == NULL) {
        call = calloc(1, sizeof *call);
        *request = call;
        if (call != NULL) {
            ct_buf_init(&call->body, web->body_max);
        }
        return call != NULL ? MHD_YES : MHD_NO;
    }
    if (*data_length > 0) {
        call->too_long |= ct_buf_append(&call->body, data, *data_length) != CT_OK;
        *data_length = 0;
        return MHD_YES;
    }
    return answer_call(web, connection, url, method, call);
}

static enum MHD_Result on_request(void *user, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *data_length, void **request) {
    (void)version;
    struct ct_web *web = user;
    if (web->answer != NULL) {
        return on_call(web, connection, url,
                       strcmp(method, MHD_HTTP_METHOD_HEAD) == 0 ? "GET" : method, data,
                       data_length, request);
    }
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
        return answer_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    }
    char file[CT_WEB_FILE_MAX];
    enum ct_web_kind kind = ct_web_route(url, file);
    switch (kind) {
    case CT_WEB_PAGE:
    case CT_WEB_STATUS:
        return answer_status(web, connection, kind);
    case CT_WEB_NOTE:
    case CT_WEB_TILE:
    case CT_WEB_BLOB:
        return serve_file(web, connection, kind, file);
    case CT_WEB_PROFILE:
        if (web->profiles_fd < 0) {
            break;
        }
        return serve_file(web, connection, kind, file);
    case CT_WEB_KEPT:
        return answer_kept(web, connection);
    case CT_WEB_NOTHING:
        break;
    }
    return answer_text(connection, MHD_HTTP_NOT_FOUND, "not here\n");
}

/* Refuses nothing but keeps percent signs as they are: no path of ours has one. */
static size_t keep_escapes(void *user, struct MHD_Connection *connection, char *text) {
    (void)user;
    (void)connection;
    return strlen(text);
}

static void log_line(void *user, const char *format, va_list arguments) {
    (void)user;
    char text[300];
    vsnprintf(text, sizeof text, format, arguments);
    text[strcspn(text, "\n")] = '\0';
    ct_log(CT_LOG_DEBUG, "http", "%s", text);
}

static enum ct_err start(struct ct_web *web, const struct ct_web_options *options,
                         uint16_t *out_port) {
    char service[8];
    snprintf(service, sizeof service, "%u", (unsigned)options->port);
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *address;
    int status = getaddrinfo(options->host, service, &hints, &address);
    if (status != 0) {
        return ct_fail(CT_ERR_NETWORK, "cannot listen on %s: %s", options->host,
                       gai_strerror(status));
    }
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ERROR_LOG;
    if (address->ai_family == AF_INET6) {
        flags |= MHD_USE_IPv6;
    }
    web->daemon = MHD_start_daemon(
        flags, options->port, NULL, NULL, on_request, web, MHD_OPTION_EXTERNAL_LOGGER, log_line,
        NULL, MHD_OPTION_SOCK_ADDR, address->ai_addr, MHD_OPTION_THREAD_POOL_SIZE, THREADS,
        MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
        PER_ADDRESS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_BYTES, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL,
        MHD_OPTION_NOTIFY_COMPLETED, end_call, NULL, MHD_OPTION_END);
    freeaddrinfo(address);
    const union MHD_DaemonInfo *info =
        web->daemon == NULL ? NULL : MHD_get_daemon_info(web->daemon, MHD_DAEMON_INFO_BIND_PORT);
    if (info == NULL) {
        return ct_fail(CT_ERR_NETWORK, "cannot listen for HTTP on %s port %u: is it taken?",
                       options->host, (unsigned)options->port);
    }
    *out_port = info->port;
    return CT_OK;
}

enum ct_err ct_web_open(const struct ct_web_options *options, struct ct_web **out,
                        uint16_t *out_port) {
    struct ct_web *web = calloc(1, sizeof *web);
    if (web == NULL) {
        return ct_fail(CT_ERR_MEMORY, "out of memory for the HTTP server");
    }
    pthread_mutex_init(&web->lock, NULL);
    web->answer = options->answer;
    web->user = options->user;
    web->body_max = options->body_max;
    web->ledger_fd = web->blobs_fd = web->profiles_fd = -1;
    if (options->answer == NULL) {
        web->ledger_fd = open(options->ledger_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        web->blobs_fd = open(options->blobs_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (options->profiles_dir != NULL) {
            web->profiles_fd = open(options->profiles_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        }
    }
    enum ct_err err = CT_OK;
    if (options->answer != NULL) {
        err = start(web, options, out_port);
    } else if (web->ledger_fd < 0 || web->blobs_fd < 0) {
        err = ct_fail(CT_ERR_IO, "cannot open %s or %s", options->ledger_dir, options->blobs_dir);
    } else {
        err = start(web, options, out_port);
    }
    if (err != CT_OK) {
        ct_web_close(web);
        return err;
    }
    *out = web;
    return CT_OK;
}

void ct_web_close(struct ct_web *web) {
    if (web->daemon != NULL) {
        MHD_stop_daemon(web->daemon);
    }
    if (web->ledger_fd >= 0) {
        close(web->ledger_fd);
    }
    if (web->blobs_fd >= 0) {
        close(web->blobs_fd);
    }
    if (web->profiles_fd >= 0) {
        close(web->profiles_fd);
    }
    pthread_mutex_destroy(&web->lock);
    free(web->page);
    free(web->json);
    free(web);
}

void ct_web_show(struct ct_web *web, const char *page, const char *json) {
    char *new_page = strdup(page), *new_json = strdup(json);
    if (new_page == NULL || new_json == NULL) {
        free(new_page);
        free(new_json);
        return;
    }
    pthread_mutex_lock(&web->lock);
    char *old_page = web->page, *old_json = web->json;
    web->page = new_page;
    web->json = new_json;
    pthread_mutex_unlock(&web->lock);
    free(old_page);
    free(old_json);
}

uint64_t ct_web_sent_bytes(const struct ct_web *web) {
    return __atomic_load_n(&web->sent_bytes, __ATOMIC_RELAXED);
}
