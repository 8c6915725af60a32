/* Downloads against a small HTTP server in this process that can be told to misbehave. */
#include <cotrain/fetch.h>

#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define BIG_BYTES (6u << 20)

struct server {
    int listener;
    uint16_t port;
    pthread_t thread;
    const uint8_t *big;
    atomic_uint requests;
    atomic_uint ranged;   /* answered with 206 */
    atomic_bool no_range; /* answers 200 and everything */
    atomic_bool lie;      /* serves other bytes */
    atomic_uint cut;      /* ends a body after so many bytes, once */
    atomic_bool wrong_range;
};

static void send_all(int fd, const void *data, size_t length) {
    const uint8_t *bytes = data;
    while (length > 0) {
        ssize_t n = send(fd, bytes, length, MSG_NOSIGNAL);
        if (n <= 0) {
            return;
        }
        bytes += n;
        length -= (size_t)n;
    }
}

static void send_text(int fd, const char *text) {
    send_all(fd, text, strlen(text));
}

static void serve_big(struct server *server, int fd, const char *request) {
    size_t start = 0;
    const char *range = strstr(request, "Range: bytes=");
    char head[256];
    if (range != NULL && !server->no_range) {
        start = strtoul(range + 13, NULL, 10);
        atomic_fetch_add(&server->ranged, 1);
        snprintf(head, sizeof head,
                 "HTTP/1.1 206 Partial Content\r\nContent-Length: %zu\r\n"
                 "Content-Range: bytes %zu-%u/%u\r\nConnection: close\r\n\r\n",
                 BIG_BYTES - start, server->wrong_range ? start + 1 : start, BIG_BYTES - 1,
                 BIG_BYTES);
    } else {
        snprintf(head, sizeof head,
                 "HTTP/1.1 200 OK\r\nContent-Length: %u\r\nConnection: close\r\n\r\n", BIG_BYTES);
    }
    send_text(fd, head);
    size_t length = BIG_BYTES - start;
    unsigned cut = atomic_exchange(&server->cut, 0);
    length = cut != 0 && cut < length ? cut : length;
    if (server->lie) {
        send_all(fd, "liar", 4);
        send_all(fd, server->big + start + 4, length - 4);
    } else {
        send_all(fd, server->big + start, length);
    }
}

static void answer(struct server *server, int fd) {
    char request[4096];
    size_t have = 0;
    for (;;) {
        ssize_t n = recv(fd, request + have, sizeof request - 1 - have, 0);
        if (n <= 0) {
            return;
        }
        have += (size_t)n;
        request[have] = '\0';
        if (strstr(request, "\r\n\r\n") != NULL) {
            break;
        }
    }
    atomic_fetch_add(&server->requests, 1);
    static const char close_line[] = "Connection: close\r\n\r\n";
    char text[512];
    if (strncmp(request, "GET /base/hello ", 16) == 0) {
        snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n%s%s", close_line,
                 server->lie ? "olleh" : "hello");
        send_text(fd, text);
    } else if (strncmp(request, "GET /base/empty ", 16) == 0) {
        snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n%s", close_line);
        send_text(fd, text);
    } else if (strncmp(request, "GET /base/moved ", 16) == 0) {
        snprintf(text, sizeof text,
                 "HTTP/1.1 302 Found\r\nLocation: /base/hello\r\nContent-Length: 4\r\n%smoved",
                 close_line);
        send_text(fd, text);
    } else if (strncmp(request, "GET /base/file ", 15) == 0) {
        snprintf(text, sizeof text,
                 "HTTP/1.1 302 Found\r\nLocation: file:///etc/hostname\r\n"
                 "Content-Length: 0\r\n%s",
                 close_line);
        send_text(fd, text);
    } else if (strncmp(request, "GET /base/broken ", 17) == 0) {
        snprintf(text, sizeof text,
                 "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n%soops", close_line);
        send_text(fd, text);
    } else if (strncmp(request, "GET /base/silent ", 17) == 0) {
        char byte = 0;
        /* Nothing until the client goes. */
        (void)!recv(fd, &byte, 1, 0);
    } else if (strncmp(request, "GET /base/blobs/", 16) == 0) {
        serve_big(server, fd, request);
    } else {
        snprintf(text, sizeof text, "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n%snone",
                 close_line);
        send_text(fd, text);
    }
}

static void *server_main(void *user) {
    struct server *server = user;
    for (;;) {
        int fd = accept(server->listener, NULL, NULL);
        if (fd < 0) {
            return NULL;
        }
        answer(server, fd);
        shutdown(fd, SHUT_WR);
        close(fd);
    }
}

static void server_start(struct server *server, const uint8_t *big) {
    memset(server, 0, sizeof *server);
    server->big = big;
    server->listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof address;
    assert_return_code(bind(server->listener, (struct sockaddr *)&address, length), 0);
    assert_return_code(listen(server->listener, 16), 0);
    assert_return_code(getsockname(server->listener, (struct sockaddr *)&address, &length), 0);
    server->port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&server->thread, NULL, server_main, server), 0);
}

static void server_stop(struct server *server) {
    shutdown(server->listener, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->listener);
}

struct world {
    struct server good, other;
    uint8_t *big;
    struct ct_blob_ref ref;
    char dir[64];
    struct ct_blobs store;
    char urls[3][64]; /* good, other, nobody there */
};

static int set_up(void **state) {
    struct world *world = calloc(1, sizeof *world);
    world->big = malloc(BIG_BYTES);
    for (size_t i = 0; i < BIG_BYTES; i++) {
        world->big[i] = (uint8_t)(i * 2654435761u >> 16);
    }
    world->ref =
        (struct ct_blob_ref){ct_sha256((struct ct_bytes){world->big, BIG_BYTES}), BIG_BYTES};
    snprintf(world->dir, sizeof world->dir, "/tmp/test_fetch.XXXXXX");
    assert_non_null(mkdtemp(world->dir));
    assert_int_equal(ct_blobs_init(&world->store, world->dir), CT_OK);
    server_start(&world->good, world->big);
    server_start(&world->other, world->big);
    snprintf(world->urls[0], 64, "http://127.0.0.1:%u/base", world->good.port);
    snprintf(world->urls[1], 64, "http://127.0.0.1:%u/base/", world->other.port);
    snprintf(world->urls[2], 64, "http://127.0.0.1:1/base");
    *state = world;
    return 0;
}

static int tear_down(void **state) {
    struct world *world = *state;
    server_stop(&world->good);
    server_stop(&world->other);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", world->dir);
    assert_int_equal(system(command), 0);
    free(world->big);
    free(world);
    return 0;
}

static struct ct_fetch *open_fetch(struct world *world, const char *order,
                                   const struct ct_fetch_options *options) {
    const char *bases[4];
    uint32_t count = 0;
    for (const char *c = order; *c != '\0'; c++) {
        bases[count++] = world->urls[*c - '0'];
    }
    struct ct_fetch *fetch = NULL;
    assert_int_equal(ct_fetch_open(bases, count, options, &fetch), CT_OK);
    return fetch;
}

static void gets_and_refuses(void **state) {
    struct world *world = *state;
    struct ct_fetch *fetch = open_fetch(world, "0", NULL);
    struct ct_buf buf;
    ct_buf_init(&buf, 5);
    assert_int_equal(ct_fetch_get(fetch, "hello", &buf), CT_OK);
    assert_int_equal(buf.length, 5);
    assert_memory_equal(buf.data, "hello", 5);
    assert_int_equal(ct_fetch_received(fetch), 5);
    assert_int_equal(ct_fetch_get(fetch, "empty", &buf), CT_OK);
    assert_int_equal(buf.length, 0);
    assert_int_equal(ct_fetch_get(fetch, "moved", &buf), CT_OK);
    assert_memory_equal(buf.data, "hello", 5);
    assert_int_equal(ct_fetch_get(fetch, "nothing", &buf), CT_ERR_NOT_FOUND);
    assert_int_equal(buf.length, 0);
    assert_int_equal(ct_fetch_get(fetch, "broken", &buf), CT_ERR_NETWORK);
    assert_non_null(strstr(ct_err_detail(), "500"));
    assert_int_equal(ct_fetch_get(fetch, "file", &buf), CT_ERR_NETWORK);
    ct_buf_deinit(&buf);
    ct_buf_init(&buf, 4);
    assert_int_equal(ct_fetch_get(fetch, "hello", &buf), CT_ERR_TOO_LARGE);
    assert_int_equal(buf.length, 0);
    ct_buf_deinit(&buf);
    ct_fetch_close(fetch);
}

static void the_rest_is_the_same_with_and_without_ranges(void **state) {
    struct world *world = *state;
    struct ct_fetch *fetch = open_fetch(world, "0", NULL);
    struct ct_buf buf;
    ct_buf_init(&buf, BIG_BYTES);
    for (int turn = 0; turn < 2; turn++) {
        world->good.no_range = turn == 1;
        assert_int_equal(ct_fetch_get_rest(fetch, 0, "blobs/x", BIG_BYTES - 1000, &buf), CT_OK);
        assert_int_equal(buf.length, 1000);
        assert_memory_equal(buf.data, world->big + BIG_BYTES - 1000, 1000);
    }
    assert_int_equal(world->good.ranged, 1);
    world->good.no_range = false;
    world->good.wrong_range = true;
    assert_int_equal(ct_fetch_get_rest(fetch, 0, "blobs/x", 1000, &buf), CT_ERR_NETWORK);
    assert_int_equal(buf.length, 0);
    ct_buf_deinit(&buf);
    ct_fetch_close(fetch);
}

static void only_http_urls_are_bases(void **state) {
    (void)state;
    static const char *const bad[] = {"ftp://host/",  "file:///etc", "host:80", "",
                                      "http://a?b=c", "http://"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct ct_fetch *fetch = NULL;
        assert_int_equal(ct_fetch_open(&bad[i], 1, NULL, &fetch), CT_ERR_CONFIG);
    }
}

static void mirrors_are_asked_in_turn(void **state) {
    struct world *world = *state;
    struct ct_fetch *fetch = open_fetch(world, "201", NULL);
    struct ct_buf buf;
    ct_buf_init(&buf, 100);
    assert_int_equal(ct_fetch_get(fetch, "hello", &buf), CT_OK);
    assert_int_equal(world->good.requests, 1);
    assert_int_equal(ct_fetch_get(fetch, "hello", &buf), CT_OK);
    assert_int_equal(world->good.requests, 2);
    assert_int_equal(world->other.requests, 0);
    ct_buf_deinit(&buf);
    ct_fetch_close(fetch);
}

static void assert_stored(struct world *world) {
    struct ct_buf buf;
    assert_int_equal(ct_blobs_get(&world->store, &world->ref, BIG_BYTES, &buf), CT_OK);
    assert_memory_equal(buf.data, world->big, BIG_BYTES);
    ct_buf_deinit(&buf);
}

static void broken_download_is_resumed(void **state) {
    struct world *world = *state;
    struct ct_fetch *fetch = open_fetch(world, "0", NULL);
    world->good.cut = 2000000;
    assert_int_equal(ct_fetch_blob(fetch, &world->ref, &world->store), CT_OK);
    assert_stored(world);
    assert_int_equal(world->good.requests, 2);
    assert_int_equal(world->good.ranged, 1);
    assert_int_equal(ct_fetch_received(fetch), BIG_BYTES);
    /* It is there: nobody is asked. */
    assert_int_equal(ct_fetch_blob(fetch, &world->ref, &world->store), CT_OK);
    assert_int_equal(world->good.requests, 2);
    ct_fetch_close(fetch);
}

static void server_without_ranges_starts_over(void **state) {
    struct world *world = *state;
    struct ct_fetch *fetch = open_fetch(world, "0", NULL);
    world->good.cut = 3000000;
    world->good.no_range = true;
    assert_int_equal(ct_fetch_blob(fetch, &world->ref, &world->store), CT_OK);
    assert_stored(world);
    assert_int_equal(world->good.ranged, 0);
    ct_fetch_close(fetch);
}

static void answer_for_another_range_is_refused(void **state) {
    struct world *world = *state;
    struct ct_fetch *fetch = open_fetch(world, "0", NULL);
    world->good.cut = 1000000;
    world->good.wrong_range = true;
    assert_int_equal(ct_fetch_blob(fetch, &world->ref, &world->store), CT_ERR_NETWORK);
    world->good.wrong_range = false;
    assert_int_equal(ct_fetch_blob(fetch, &world->ref, &world->store), CT_OK);
    assert_stored(world);
    ct_fetch_close(fetch);
}

static void liar_is_left_for_the_next(void **state) {
    struct world *world = *state;
    world->other.lie = true;
    struct ct_fetch *fetch = open_fetch(world, "1", NULL);
    assert_int_equal(ct_fetch_blob(fetch, &world->ref, &world->store), CT_ERR_DIGEST);
    assert_false(ct_blobs_have(&world->store, &world->ref));
    ct_fetch_close(fetch);
    fetch = open_fetch(world, "10", NULL);
    assert_int_equal(ct_fetch_blob(fetch, &world->ref, &world->store), CT_OK);
    assert_stored(world);
    ct_fetch_close(fetch);
}

/* What one mirror gave wrong must not spoil what the next one serves. */
static void half_a_lie_is_forgotten(void **state) {
    struct world *world = *state;
    world->other.lie = true;
    world->other.cut = 1000000;
    world->other.no_range = true;
    char hex[CT_HEX_BYTES];
    char part[256];
    ct_hash_hex(&world->ref.sha256, hex);
    snprintf(part, sizeof part, "%s/%s.part", world->dir, hex);
    FILE *file = fopen(part, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite("lies", 1, 4, file), 4);
    fclose(file);
    struct ct_fetch *fetch = open_fetch(world, "0", NULL);
    assert_int_equal(ct_fetch_blob(fetch, &world->ref, &world->store), CT_OK);
    assert_stored(world);
    assert_int_not_equal(access(part, F_OK), 0);
    ct_fetch_close(fetch);
}

static bool always(void *user) {
    atomic_uint *asked = user;
    atomic_fetch_add(asked, 1);
    return true;
}

static void cancelling_ends_a_silent_download(void **state) {
    struct world *world = *state;
    atomic_uint asked = 0;
    struct ct_fetch_options options = {.cancelled = always, .user = &asked};
    struct ct_fetch *fetch = open_fetch(world, "01", &options);
    struct ct_buf buf;
    ct_buf_init(&buf, 100);
    assert_int_equal(ct_fetch_get(fetch, "silent", &buf), CT_ERR_STATE);
    assert_true(asked > 0);
    assert_int_equal(world->other.requests, 0);
    ct_buf_deinit(&buf);
    ct_fetch_close(fetch);
}

static void stalled_mirror_is_left(void **state) {
    struct world *world = *state;
    struct ct_fetch_options options = {.stall_timeout_s = 1};
    struct ct_fetch *fetch = open_fetch(world, "0", &options);
    struct ct_buf buf;
    ct_buf_init(&buf, 100);
    assert_int_equal(ct_fetch_get(fetch, "silent", &buf), CT_ERR_NETWORK);
    ct_buf_deinit(&buf);
    ct_fetch_close(fetch);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(gets_and_refuses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_rest_is_the_same_with_and_without_ranges, set_up,
                                        tear_down),
        cmocka_unit_test(only_http_urls_are_bases),
        cmocka_unit_test_setup_teardown(mirrors_are_asked_in_turn, set_up, tear_down),
        cmocka_unit_test_setup_teardown(broken_download_is_resumed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(server_without_ranges_starts_over, set_up, tear_down),
        cmocka_unit_test_setup_teardown(answer_for_another_range_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(liar_is_left_for_the_next, set_up, tear_down),
        cmocka_unit_test_setup_teardown(half_a_lie_is_forgotten, set_up, tear_down),
        cmocka_unit_test_setup_teardown(cancelling_ends_a_silent_download, set_up, tear_down),
        cmocka_unit_test_setup_teardown(stalled_mirror_is_left, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
