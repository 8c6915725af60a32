#include <cotrain/limits.h>
#include <cotrain/link.h>
#include <cotrain/log.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

/* One end of a link and what happened to it. */
struct end {
    struct ct_link *link;
    bool opened, closed;
    enum ct_err why;
    char detail[256];
    struct ct_hash peer_key;
    uint64_t frames, bytes;
    uint32_t checksum;
    uint64_t received_bytes, sent_bytes;
    /* what to do */
    bool echo, close_when_opened;
    size_t frame_max;
};

struct world {
    uv_loop_t loop;
    struct ct_key *server_key, *client_key;
    struct ct_hash server_public, client_public;
    struct ct_link_server *server;
    uint16_t port;
    struct end ends[8]; /* of accepted links */
    uint32_t end_count;
    bool refuse;
};

static void on_opened(void *user, struct ct_link *link, const struct ct_hash *peer_key) {
    struct end *end = user;
    assert_false(end->opened);
    end->opened = true;
    end->peer_key = *peer_key;
    if (end->frame_max != 0) {
        ct_link_frame_max(link, end->frame_max);
    }
    if (end->close_when_opened) {
        ct_link_close(link, CT_ERR_REFUSED, "not wanted");
    }
}

static void on_frame(void *user, struct ct_link *link, struct ct_bytes frame) {
    struct end *end = user;
    assert_true(end->opened && !end->closed);
    end->frames++;
    end->bytes += frame.length;
    for (size_t i = 0; i < frame.length; i++) {
        end->checksum = end->checksum * 31u + frame.data[i];
    }
    if (end->echo) {
        assert_int_equal(ct_link_send(link, frame), CT_OK);
    }
}

static void on_closed(void *user, struct ct_link *link, enum ct_err why, const char *detail) {
    struct end *end = user;
    assert_false(end->closed);
    end->closed = true;
    end->why = why;
    snprintf(end->detail, sizeof end->detail, "%s", detail);
    ct_link_traffic(link, &end->received_bytes, &end->sent_bytes);
    end->link = NULL;
}

static const struct ct_link_events events = {on_opened, on_frame, on_closed};

static void *on_accept(void *user, struct ct_link *link) {
    struct world *world = user;
    if (world->refuse || world->end_count == sizeof world->ends / sizeof world->ends[0]) {
        return NULL;
    }
    struct end *end = &world->ends[world->end_count++];
    end->link = link;
    return end;
}

static void world_init(struct world *world, uint32_t links_max) {
    memset(world, 0, sizeof *world);
    assert_int_equal(uv_loop_init(&world->loop), 0);
    assert_int_equal(ct_key_generate(&world->server_key), CT_OK);
    assert_int_equal(ct_key_generate(&world->client_key), CT_OK);
    world->server_public = ct_key_public(world->server_key);
    world->client_public = ct_key_public(world->client_key);
    assert_int_equal(ct_link_listen(&world->loop, "127.0.0.1", 0, world->server_key, links_max,
                                    on_accept, &events, world, &world->server, &world->port),
                     CT_OK);
    assert_true(world->port != 0);
}

static void world_deinit(struct world *world) {
    ct_link_server_close(world->server);
    uv_run(&world->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&world->loop), 0);
    ct_key_free(world->server_key);
    ct_key_free(world->client_key);
}

static void connect_end(struct world *world, struct end *end, const struct ct_hash *expected) {
    assert_int_equal(ct_link_connect(&world->loop, "127.0.0.1", world->port, world->client_key,
                                     expected, &events, end, &end->link),
                     CT_OK);
}

#define RUN_UNTIL(world, condition)                                                                \
    while (!(condition)) {                                                                         \
        assert_true(uv_run(&(world)->loop, UV_RUN_ONCE) != 0);                                     \
    }

static void both_sides_learn_the_key(void **state) {
    (void)state;
    struct world world;
    world_init(&world, 4);
    struct end client = {0};
    connect_end(&world, &client, &world.server_public);
    RUN_UNTIL(&world, client.opened && world.end_count == 1 && world.ends[0].opened);
    assert_true(ct_hash_equal(&client.peer_key, &world.server_public));
    assert_true(ct_hash_equal(&world.ends[0].peer_key, &world.client_public));
    ct_link_close(client.link, CT_OK, "enough");
    assert_false(client.closed);
    RUN_UNTIL(&world, client.closed && world.ends[0].closed);
    assert_int_equal(client.why, CT_OK);
    assert_string_equal(client.detail, "enough");
    assert_int_equal(world.ends[0].why, CT_ERR_NETWORK);
    world_deinit(&world);
}

static void another_key_than_expected_is_refused(void **state) {
    (void)state;
    struct world world;
    world_init(&world, 4);
    struct end client = {0};
    connect_end(&world, &client, &world.client_public);
    RUN_UNTIL(&world, client.closed && world.end_count == 1 && world.ends[0].closed);
    assert_false(client.opened);
    assert_int_equal(client.why, CT_ERR_TLS);
    assert_non_null(strstr(client.detail, "another key"));
    assert_false(world.ends[0].opened);
    world_deinit(&world);
}

static void many_frames_of_all_sizes_come_back(void **state) {
    (void)state;
    struct world world;
    world_init(&world, 4);
    struct end client = {.frame_max = CT_FRAME_BYTES_MAX_UPLOAD};
    connect_end(&world, &client, NULL);
    RUN_UNTIL(&world, client.opened && world.end_count == 1 && world.ends[0].opened);
    struct end *server = &world.ends[0];
    server->echo = true;
    ct_link_frame_max(server->link, CT_FRAME_BYTES_MAX_UPLOAD);

    uint8_t *data = malloc(CT_FRAME_BYTES_MAX_UPLOAD);
    assert_non_null(data);
    for (size_t i = 0; i < CT_FRAME_BYTES_MAX_UPLOAD; i++) {
        data[i] = (uint8_t)(i * 2654435761u >> 24);
    }
    static const size_t lengths[] = {0, 1, 3, 4, 5, 100, 16383, 16384, 16385, 65536, 1000000};
    uint64_t frames = 0, bytes = 0;
    uint32_t checksum = 0;
    for (uint32_t round = 0; round < 20; round++) {
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
            size_t length = lengths[i] + (lengths[i] > 100 ? round : 0);
            assert_int_equal(ct_link_send(client.link, (struct ct_bytes){data + round, length}),
                             CT_OK);
            frames++;
            bytes += length;
            for (size_t j = 0; j < length; j++) {
                checksum = checksum * 31u + data[round + j];
            }
            RUN_UNTIL(&world, ct_link_queued_bytes(client.link) < 2000000);
        }
    }
    RUN_UNTIL(&world, client.frames == frames);
    assert_int_equal(server->frames, frames);
    assert_int_equal(server->bytes, bytes);
    assert_int_equal(server->checksum, checksum);
    assert_int_equal(client.checksum, checksum);
    uint64_t received, sent;
    ct_link_traffic(client.link, &received, &sent);
    assert_true(sent > bytes && sent < bytes + bytes / 50);
    assert_true(received > bytes && received < bytes + bytes / 50);
    free(data);
    world_deinit(&world);
    assert_true(client.closed);
}

static void what_was_queued_arrives_before_the_close(void **state) {
    (void)state;
    struct world world;
    world_init(&world, 4);
    struct end client = {0};
    connect_end(&world, &client, NULL);
    RUN_UNTIL(&world, client.opened && world.end_count == 1 && world.ends[0].opened);
    ct_link_frame_max(world.ends[0].link, CT_FRAME_BYTES_MAX_UPLOAD);
    uint8_t *data = calloc(1, 1000000);
    assert_non_null(data);
    for (uint32_t i = 0; i < 7; i++) {
        assert_int_equal(ct_link_send(client.link, (struct ct_bytes){data, 1000000}), CT_OK);
    }
    /* Backpressure: the eighth million and some does not fit any more. */
    enum ct_err err = CT_OK;
    for (uint32_t i = 0; i < 4 && err == CT_OK; i++) {
        err = ct_link_send(client.link, (struct ct_bytes){data, 1000000});
    }
    assert_int_equal(err, CT_ERR_TOO_LARGE);
    ct_link_close(client.link, CT_OK, "done");
    assert_int_equal(ct_link_send(client.link, (struct ct_bytes){data, 1}), CT_ERR_STATE);
    RUN_UNTIL(&world, client.closed && world.ends[0].closed);
    assert_int_equal(world.ends[0].frames, 8);
    free(data);
    world_deinit(&world);
}

static void an_oversized_length_closes(void **state) {
    (void)state;
    struct world world;
    world_init(&world, 4);
    struct end client = {0};
    connect_end(&world, &client, NULL);
    RUN_UNTIL(&world, client.opened && world.end_count == 1 && world.ends[0].opened);
    uint8_t data[CT_FRAME_BYTES_MAX_EARLY + 1] = {0};
    assert_int_equal(ct_link_send(client.link, (struct ct_bytes){data, sizeof data - 1}), CT_OK);
    assert_int_equal(ct_link_send(client.link, (struct ct_bytes){data, sizeof data}), CT_OK);
    assert_int_equal(ct_link_send(client.link, (struct ct_bytes){data, 1}), CT_OK);
    RUN_UNTIL(&world, client.closed && world.ends[0].closed);
    assert_int_equal(world.ends[0].frames, 1);
    assert_int_equal(world.ends[0].why, CT_ERR_TOO_LARGE);
    assert_non_null(strstr(world.ends[0].detail, "4097"));
    world_deinit(&world);
}

static void a_close_in_a_callback_ends_the_callbacks(void **state) {
    (void)state;
    struct world world;
    world_init(&world, 4);
    world.ends[0].close_when_opened = true;
    struct end client = {0};
    connect_end(&world, &client, NULL);
    RUN_UNTIL(&world, client.opened);
    enum ct_err err = ct_link_send(client.link, (struct ct_bytes){(const uint8_t *)"x", 1});
    assert_true(err == CT_OK || err == CT_ERR_STATE);
    RUN_UNTIL(&world, client.closed && world.ends[0].closed);
    assert_int_equal(world.ends[0].frames, 0);
    assert_int_equal(world.ends[0].why, CT_ERR_REFUSED);
    assert_int_equal(client.why, CT_ERR_NETWORK);
    world_deinit(&world);
}

static void too_many_links_and_unwanted_ones_are_turned_away(void **state) {
    (void)state;
    struct world world;
    world_init(&world, 1);
    struct end first = {0}, second = {0}, third = {0};
    connect_end(&world, &first, NULL);
    RUN_UNTIL(&world, first.opened && world.end_count == 1 && world.ends[0].opened);
    connect_end(&world, &second, NULL);
    RUN_UNTIL(&world, second.closed);
    assert_false(second.opened);
    ct_link_close(first.link, CT_OK, "");
    RUN_UNTIL(&world, first.closed && world.ends[0].closed);
    world.refuse = true;
    connect_end(&world, &third, NULL);
    RUN_UNTIL(&world, third.closed);
    assert_false(third.opened);
    assert_int_equal(world.end_count, 1);
    world_deinit(&world);
}

static void nobody_there_is_an_error_of_the_network(void **state) {
    (void)state;
    struct world world;
    world_init(&world, 1);
    /* A port that was just free: bound without listening. */
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof name;
    assert_int_equal(bind(fd, (struct sockaddr *)&name, length), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &length), 0);
    struct end client = {0};
    assert_int_equal(ct_link_connect(&world.loop, "127.0.0.1", ntohs(name.sin_port),
                                     world.client_key, NULL, &events, &client, &client.link),
                     CT_OK);
    RUN_UNTIL(&world, client.closed);
    assert_int_equal(client.why, CT_ERR_NETWORK);
    assert_non_null(strstr(client.detail, "does not answer"));
    close(fd);
    world_deinit(&world);
}

/* A hand-made peer on a thread of its own, with blocking calls. */
struct stranger {
    uint16_t port;
    const struct ct_key *key; /* shown as a certificate, if not NULL */
    bool garbage, half_close, version_1_2, other_key_kind;
    bool shook_hands; /* from its own point of view */
    int read_result;
};

static X509 *self_signed(EVP_PKEY *key, const EVP_MD *digest) {
    X509 *certificate = X509_new();
    assert_non_null(certificate);
    ASN1_TIME_set_string(X509_getm_notBefore(certificate), "19700101000000Z");
    ASN1_TIME_set_string(X509_getm_notAfter(certificate), "19700102000000Z");
    assert_int_equal(X509_set_pubkey(certificate, key), 1);
    assert_true(X509_sign(certificate, key, digest) > 0);
    return certificate;
}

static void *stranger_run(void *user) {
    struct stranger *stranger = user;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in name = {.sin_family = AF_INET,
                               .sin_port = htons(stranger->port),
                               .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (connect(fd, (struct sockaddr *)&name, sizeof name) != 0) {
        abort();
    }
    char buffer[1000];
    if (stranger->garbage) {
        memset(buffer, 'G', sizeof buffer);
        stranger->read_result = (int)write(fd, buffer, sizeof buffer);
        while (read(fd, buffer, sizeof buffer) > 0) {
        }
        close(fd);
        return NULL;
    }
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (stranger->version_1_2) {
        SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
    }
    EVP_PKEY *other = NULL;
    EVP_PKEY *key = stranger->key != NULL ? ct_key_native(stranger->key) : NULL;
    if (stranger->other_key_kind) {
        key = other = EVP_EC_gen("P-256");
    }
    if (key != NULL) {
        X509 *certificate = self_signed(key, other != NULL ? EVP_sha256() : NULL);
        SSL_CTX_use_certificate(context, certificate);
        SSL_CTX_use_PrivateKey(context, key);
        X509_free(certificate);
    }
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, fd);
    stranger->shook_hands = SSL_connect(ssl) == 1;
    if (stranger->shook_hands) {
        if (stranger->half_close) {
            static const uint8_t half[] = {0, 0, 0, 10, 1, 2, 3};
            SSL_write(ssl, half, sizeof half);
            shutdown(fd, SHUT_WR);
        }
        stranger->read_result = SSL_read(ssl, buffer, sizeof buffer);
    }
    SSL_free(ssl);
    SSL_CTX_free(context);
    EVP_PKEY_free(other);
    close(fd);
    return NULL;
}

/* Lets a stranger connect and waits until the server has done with it. */
static void meet_stranger(struct stranger *stranger, struct end *out) {
    struct world world;
    world_init(&world, 4);
    stranger->port = world.port;
    const struct ct_key *key = stranger->key;
    stranger->key = key != NULL ? world.client_key : NULL;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, stranger_run, stranger), 0);
    RUN_UNTIL(&world, world.end_count == 1 && world.ends[0].closed);
    pthread_join(thread, NULL);
    *out = world.ends[0];
    /* The server goes on. */
    struct end client = {0};
    connect_end(&world, &client, &world.server_public);
    RUN_UNTIL(&world, client.opened);
    world_deinit(&world);
}

static void garbage_instead_of_tls_is_refused(void **state) {
    (void)state;
    struct stranger stranger = {.garbage = true};
    struct end end;
    meet_stranger(&stranger, &end);
    assert_false(end.opened);
    assert_int_equal(end.why, CT_ERR_TLS);
}

static void a_peer_without_certificate_is_refused(void **state) {
    (void)state;
    struct stranger stranger = {0};
    struct end end;
    meet_stranger(&stranger, &end);
    assert_false(end.opened);
    assert_int_equal(end.why, CT_ERR_TLS);
    assert_true(stranger.read_result <= 0);
}

static void another_kind_of_key_is_refused(void **state) {
    (void)state;
    struct stranger stranger = {.other_key_kind = true};
    struct end end;
    meet_stranger(&stranger, &end);
    assert_false(end.opened);
    assert_int_equal(end.why, CT_ERR_TLS);
}

static void tls_1_2_is_refused(void **state) {
    (void)state;
    struct stranger stranger = {.version_1_2 = true};
    struct end end;
    meet_stranger(&stranger, &end);
    assert_false(end.opened);
    assert_false(stranger.shook_hands);
    assert_int_equal(end.why, CT_ERR_TLS);
}

static void a_half_closed_link_ends(void **state) {
    (void)state;
    struct ct_key *key;
    assert_int_equal(ct_key_generate(&key), CT_OK);
    struct stranger stranger = {.key = key, .half_close = true};
    struct end end;
    meet_stranger(&stranger, &end);
    assert_true(end.opened);
    assert_int_equal(end.frames, 0);
    assert_int_equal(end.why, CT_ERR_NETWORK);
    /* It saw an orderly end of TLS, not a reset. */
    assert_int_equal(stranger.read_result, 0);
    ct_key_free(key);
}

static int client_hello(uint8_t *out, int capacity) {
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL *tls = SSL_new(context);
    BIO *sent = BIO_new(BIO_s_mem());
    SSL_set_bio(tls, BIO_new(BIO_s_mem()), sent);
    SSL_set_connect_state(tls);
    assert_int_equal(SSL_do_handshake(tls), -1);
    int length = BIO_read(sent, out, capacity);
    SSL_free(tls);
    SSL_CTX_free(context);
    return length;
}

/* Says hello, ends its half and resets the connection, all before the server looks: what the server
 * then answers meets a broken pipe. */
static void a_broken_pipe_ends_its_link_alone(void **state) {
    (void)state;
    struct world world;
    world_init(&world, 4);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    const struct sockaddr_in server = {
        .sin_family = AF_INET, .sin_port = htons(world.port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    assert_int_equal(connect(fd, (const struct sockaddr *)&server, sizeof server), 0);
    uint8_t hello[1024];
    const int length = client_hello(hello, sizeof hello);
    assert_true(length > 0);
    assert_int_equal(send(fd, hello, (size_t)length, MSG_NOSIGNAL), length);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
    close(fd);
    RUN_UNTIL(&world, world.end_count == 1 && world.ends[0].closed);
    struct end client = {0};
    connect_end(&world, &client, &world.server_public);
    RUN_UNTIL(&world, client.opened);
    world_deinit(&world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_sides_learn_the_key),
        cmocka_unit_test(another_key_than_expected_is_refused),
        cmocka_unit_test(many_frames_of_all_sizes_come_back),
        cmocka_unit_test(what_was_queued_arrives_before_the_close),
        cmocka_unit_test(an_oversized_length_closes),
        cmocka_unit_test(a_close_in_a_callback_ends_the_callbacks),
        cmocka_unit_test(too_many_links_and_unwanted_ones_are_turned_away),
        cmocka_unit_test(nobody_there_is_an_error_of_the_network),
        cmocka_unit_test(garbage_instead_of_tls_is_refused),
        cmocka_unit_test(a_peer_without_certificate_is_refused),
        cmocka_unit_test(another_kind_of_key_is_refused),
        cmocka_unit_test(tls_1_2_is_refused),
        cmocka_unit_test(a_half_closed_link_ends),
        cmocka_unit_test(a_broken_pipe_ends_its_link_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
