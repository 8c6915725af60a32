#include <cotrain/ticket.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define RUN "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static void good_tickets_come_back_as_they_were(void **state) {
    (void)state;
    static const struct {
        const char *text, *host;
        uint16_t port;
    } good[] = {
        {"cotrain://localhost:7000/" RUN, "localhost", 7000},
        {"cotrain://127.0.0.1:1/" RUN, "127.0.0.1", 1},
        {"cotrain://train.Example-1.org:65535/" RUN, "train.Example-1.org", 65535},
        {"cotrain://[::1]:443/" RUN, "::1", 443},
        {"cotrain://[2001:db8::17]:80/" RUN, "2001:db8::17", 80},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct ct_ticket ticket;
        assert_int_equal(ct_ticket_parse(good[i].text, &ticket), CT_OK);
        assert_string_equal(ticket.host, good[i].host);
        assert_int_equal(ticket.port, good[i].port);
        assert_int_equal(ticket.run_id.bytes[1], 0x11);
        char text[CT_TICKET_BYTES_MAX];
        ct_ticket_format(&ticket, text);
        assert_string_equal(text, good[i].text);
    }
}

static void all_else_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",
        "cotrain://",
        "cotrain:/localhost:7000/" RUN,
        "COTRAIN://localhost:7000/" RUN,
        "https://localhost:7000/" RUN,
        " cotrain://localhost:7000/" RUN,
        "cotrain://localhost:7000/" RUN " ",
        "cotrain://localhost:7000/" RUN "/",
        "cotrain://localhost:7000/" RUN "0",
        "cotrain://localhost:7000/00112233",
        "cotrain://localhost:7000/00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff",
        "cotrain://localhost:7000",
        "cotrain://localhost/" RUN,
        "cotrain://localhost:/" RUN,
        "cotrain://localhost:0/" RUN,
        "cotrain://localhost:07000/" RUN,
        "cotrain://localhost:65536/" RUN,
        "cotrain://localhost:4294967297/" RUN,
        "cotrain://localhost:+7/" RUN,
        "cotrain://localhost:-7/" RUN,
        "cotrain://:7000/" RUN,
        "cotrain://-x:7000/" RUN,
        "cotrain://a..b:7000/" RUN,
        "cotrain://a b:7000/" RUN,
        "cotrain://a;b:7000/" RUN,
        "cotrain://user@host:7000/" RUN,
        "cotrain://::1:7000/" RUN,
        "cotrain://[::1]/" RUN,
        "cotrain://[::1:7000/" RUN,
        "cotrain://[]:7000/" RUN,
        "cotrain://[localhost]:7000/" RUN,
        "cotrain://[::1]x:7000/" RUN,
        "cotrain://[fe80::1%eth0]:7000/" RUN,
        "cotrain://gr\xc3\xbcn:7000/" RUN,
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct ct_ticket ticket;
        if (ct_ticket_parse(bad[i], &ticket) != CT_ERR_FORMAT) {
            fail_msg("taken: %s", bad[i]);
        }
    }
}

static void hosts_have_a_length(void **state) {
    (void)state;
    char text[600];
    char host[300];
    struct ct_ticket ticket;
    memset(host, 'a', sizeof host);
    host[255] = '\0';
    snprintf(text, sizeof text, "cotrain://%s:65535/" RUN, host);
    assert_int_equal(ct_ticket_parse(text, &ticket), CT_OK);
    char again[CT_TICKET_BYTES_MAX];
    ct_ticket_format(&ticket, again);
    assert_string_equal(again, text);
    host[255] = 'a';
    host[256] = '\0';
    snprintf(text, sizeof text, "cotrain://%s:65535/" RUN, host);
    assert_int_equal(ct_ticket_parse(text, &ticket), CT_ERR_FORMAT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_tickets_come_back_as_they_were),
        cmocka_unit_test(all_else_is_refused),
        cmocka_unit_test(hosts_have_a_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
