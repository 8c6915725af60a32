#include "coordinator/web.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEX62 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd"

static void only_the_paths_that_there_can_be_are_routed(void **state) {
    (void)state;
    static const struct {
        const char *path;
        enum ct_web_kind kind;
        const char *file;
    } cases[] = {
        {"/", CT_WEB_PAGE, ""},
        {"/status.json", CT_WEB_STATUS, ""},
        {"/checkpoint", CT_WEB_NOTE, "checkpoint"},
        {"/witnessed", CT_WEB_NOTE, "witnessed"},
        {"/tile/0/000", CT_WEB_TILE, "tile/0/000"},
        {"/tile/63/x001/x234/067.p/255", CT_WEB_TILE, "tile/63/x001/x234/067.p/255"},
        {"/tile/entries/x123/456.p/1", CT_WEB_TILE, "tile/entries/x123/456.p/1"},
        {"/blobs/ab" HEX62, CT_WEB_BLOB, "ab/" HEX62},
        {"/blobs/ab/" HEX62, CT_WEB_BLOB, "ab/" HEX62},
        {"", CT_WEB_NOTHING, ""},
        {"/checkpoint/", CT_WEB_NOTHING, ""},
        {"/checkpoints", CT_WEB_KEPT, ""},
        {"/checkpoints/0", CT_WEB_NOTE, "checkpoints/0"},
        {"/checkpoints/123456789012345678", CT_WEB_NOTE, "checkpoints/123456789012345678"},
        {"/checkpoints/", CT_WEB_NOTHING, ""},
        {"/profiles/ab" HEX62, CT_WEB_PROFILE, "ab" HEX62},
        {"/profiles/ab" HEX62 "0", CT_WEB_NOTHING, ""},
        {"/profiles/ab" HEX62 "/", CT_WEB_NOTHING, ""},
        {"/profiles/../blobs", CT_WEB_NOTHING, ""},
        {"/profiles/", CT_WEB_NOTHING, ""},
        {"/checkpoints/05", CT_WEB_NOTHING, ""},
        {"/checkpoints/5/", CT_WEB_NOTHING, ""},
        {"/checkpoints/5.tmp", CT_WEB_NOTHING, ""},
        {"/checkpoints/1234567890123456789", CT_WEB_NOTHING, ""},
        {"/entries", CT_WEB_NOTHING, ""},
        {"/tile/64/000", CT_WEB_NOTHING, ""},
        {"/tile/00/000", CT_WEB_NOTHING, ""},
        {"/tile/0/00", CT_WEB_NOTHING, ""},
        {"/tile/0/0000", CT_WEB_NOTHING, ""},
        {"/tile/0/000.p/0", CT_WEB_NOTHING, ""},
        {"/tile/0/000.p/256", CT_WEB_NOTHING, ""},
        {"/tile/0/000.p/01", CT_WEB_NOTHING, ""},
        {"/tile/0/x000", CT_WEB_NOTHING, ""},
        {"/tile/0/000/../../../keys/log.pem", CT_WEB_NOTHING, ""},
        {"/tile/../../keys/log.pem", CT_WEB_NOTHING, ""},
        {"/blobs/../keys/identity.pem", CT_WEB_NOTHING, ""},
        {"/blobs/AB" HEX62, CT_WEB_NOTHING, ""},
        {"/blobs/ab" HEX62 "0", CT_WEB_NOTHING, ""},
        {"/blobs/a/b" HEX62, CT_WEB_NOTHING, ""},
        {"/blobs/ab/", CT_WEB_NOTHING, ""},
        {"/blobs/tmp-1", CT_WEB_NOTHING, ""},
        {"/keys/identity.pem", CT_WEB_NOTHING, ""},
        {"//checkpoint", CT_WEB_NOTHING, ""},
        {"/%63heckpoint", CT_WEB_NOTHING, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char file[CT_WEB_FILE_MAX];
        print_message("%s\n", cases[i].path);
        assert_int_equal(ct_web_route(cases[i].path, file), cases[i].kind);
        assert_string_equal(file, cases[i].file);
    }
    /* Long, but made of right groups: never over the buffer. */
    char path[2000] = "/tile/0/", file[CT_WEB_FILE_MAX];
    for (size_t i = 8; i + 5 < sizeof path; i += 5) {
        memcpy(path + i, "x123/", 5);
    }
    memcpy(path + sizeof path - 7, "/456", 5);
    assert_int_equal(ct_web_route(path, file), CT_WEB_NOTHING);
}

static void ranges_are_held_to_the_length(void **state) {
    (void)state;
    static const struct {
        const char *header;
        uint64_t length, first, count;
        unsigned status;
    } cases[] = {
        {NULL, 10, 0, 10, 200},        {"bytes=0-", 10, 0, 10, 206},
        {"bytes=3-", 10, 3, 7, 206},   {"bytes=3-3", 10, 3, 1, 206},
        {"bytes=3-99", 10, 3, 7, 206}, {"bytes=-4", 10, 6, 4, 206},
        {"bytes=-40", 10, 0, 10, 206}, {"bytes=10-", 10, 0, 10, 416},
        {"bytes=-0", 10, 0, 10, 416},  {"bytes=0-", 0, 0, 0, 416},
        {"bytes=5-4", 10, 0, 10, 200}, {"bytes=1-2,4-5", 10, 0, 10, 200},
        {"bytes=", 10, 0, 10, 200},    {"bytes=a-", 10, 0, 10, 200},
        {"items=0-1", 10, 0, 10, 200}, {"bytes=99999999999999999999-", 10, 0, 10, 200},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t first, count;
        print_message("%s\n", cases[i].header != NULL ? cases[i].header : "(none)");
        assert_int_equal(ct_web_range(cases[i].header, cases[i].length, &first, &count),
                         cases[i].status);
        assert_int_equal(first, cases[i].first);
        assert_int_equal(count, cases[i].count);
    }
}

/* A request by hand; out has the whole answer as text. */
static void ask(uint16_t port, const char *request, char *out, size_t capacity) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in name = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    assert_int_equal(connect(fd, (struct sockaddr *)&name, sizeof name), 0);
    assert_int_equal(write(fd, request, strlen(request)), strlen(request));
    size_t length = 0;
    ssize_t count;
    while ((count = read(fd, out + length, capacity - 1 - length)) > 0) {
        length += (size_t)count;
    }
    out[length] = '\0';
    close(fd);
}

static void write_file(const char *dir, const char *name, const char *text) {
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(ct_file_replace(path, (struct ct_bytes){(const uint8_t *)text, strlen(text)}),
                     CT_OK);
}

#define REST " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"

static void files_are_served_and_nothing_else(void **state) {
    (void)state;
    char dir[] = "/tmp/ct-http-XXXXXX", path[200];
    assert_non_null(mkdtemp(dir));
    static const char *const folders[] = {"ledger/tile/0", "blobs/ab", "keys"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, folders[i]);
        assert_int_equal(ct_dir_make(path), CT_OK);
    }
    write_file(dir, "ledger/checkpoint", "a note");
    write_file(dir, "ledger/tile/0/000", "tile bytes");
    write_file(dir, "blobs/ab/" HEX62, "0123456789");
    write_file(dir, "keys/log.pem", "SECRET");
    snprintf(path, sizeof path, "%s/blobs/ab/" HEX62, dir);
    path[strlen(path) - 1] = 'e';
    assert_int_equal(symlink("../../keys/log.pem", path), 0);

    char ledger[200], blobs[200], answer[4000];
    snprintf(ledger, sizeof ledger, "%s/ledger", dir);
    snprintf(blobs, sizeof blobs, "%s/blobs", dir);
    struct ct_web_options options = {.ledger_dir = ledger, .blobs_dir = blobs, .host = "127.0.0.1"};
    struct ct_web *http;
    uint16_t port;
    assert_int_equal(ct_web_open(&options, &http, &port), CT_OK);

    ask(port, "GET /checkpoint" REST "\r\n", answer, sizeof answer);
    assert_non_null(strstr(answer, " 200 "));
    assert_non_null(strstr(answer, "Cache-Control: no-cache"));
    assert_non_null(strstr(answer, "text/plain; charset=utf-8"));
    assert_non_null(strstr(answer, "\r\n\r\na note"));
    ask(port, "GET /tile/0/000" REST "\r\n", answer, sizeof answer);
    assert_non_null(strstr(answer, "application/octet-stream"));
    assert_non_null(strstr(answer, "immutable"));
    assert_non_null(strstr(answer, "\r\n\r\ntile bytes"));
    ask(port, "GET /blobs/ab" HEX62 REST "Range: bytes=4-\r\n\r\n", answer, sizeof answer);
    assert_non_null(strstr(answer, " 206 "));
    assert_non_null(strstr(answer, "Content-Range: bytes 4-9/10"));
    assert_non_null(strstr(answer, "ETag: \"ab" HEX62 "\""));
    assert_non_null(strstr(answer, "\r\n\r\n456789"));
    ask(port, "GET /blobs/ab/" HEX62 REST "Range: bytes=10-\r\n\r\n", answer, sizeof answer);
    assert_non_null(strstr(answer, " 416 "));
    assert_non_null(strstr(answer, "bytes */10"));
    ask(port, "HEAD /blobs/ab" HEX62 REST "\r\n", answer, sizeof answer);
    assert_non_null(strstr(answer, "Content-Length: 10"));
    assert_null(strstr(answer, "0123456789\r"));
    ask(port, "GET /blobs/ab" HEX62 REST "If-None-Match: \"ab" HEX62 "\"\r\n\r\n", answer,
        sizeof answer);
    assert_non_null(strstr(answer, " 304 "));
    assert_int_equal(ct_web_sent_bytes(http), 6 + 10 + 6 + 10);

    static const char *const refused[] = {
        "GET /keys/log.pem" REST "\r\n",
        "GET /tile/0/../../../keys/log.pem" REST "\r\n",
        "GET /blobs/..%2fkeys%2flog.pem" REST "\r\n",
        "GET /%2e%2e/keys/log.pem" REST "\r\n",
        "GET /tile/0/001" REST "\r\n",
        "GET /blobs/" REST "\r\n",
        "GET /blobs/ab0123456789abcdef0123456789abcdef0123456789abcdef0123456789abce" REST "\r\n",
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        ask(port, refused[i], answer, sizeof answer);
        assert_non_null(strstr(answer, " 404 "));
        assert_null(strstr(answer, "SECRET"));
    }
    ask(port, "POST /checkpoint" REST "Content-Length: 0\r\n\r\n", answer, sizeof answer);
    assert_non_null(strstr(answer, " 405 "));

    ask(port, "GET /status.json" REST "\r\n", answer, sizeof answer);
    assert_non_null(strstr(answer, " 503 "));
    ct_web_show(http, "<p>hello</p>", "{\"round\": 1}");
    ct_web_show(http, "<p>hello</p>", "{\"round\": 2}");
    ask(port, "GET /status.json" REST "\r\n", answer, sizeof answer);
    assert_non_null(strstr(answer, "\r\n\r\n{\"round\": 2}"));
    ask(port, "GET /" REST "\r\n", answer, sizeof answer);
    assert_non_null(strstr(answer, "<p>hello</p>"));
    ct_web_close(http);

    char command[300];
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_paths_that_there_can_be_are_routed),
        cmocka_unit_test(ranges_are_held_to_the_length),
        cmocka_unit_test(files_are_served_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
