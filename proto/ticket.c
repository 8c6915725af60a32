#include <cotrain/assert.h>
#include <cotrain/crypto.h>
#include <cotrain/ticket.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static const char scheme[] = "cotrain://";

static bool is_name(const char *host) {
    if (host[0] == '\0' || host[0] == '-' || host[0] == '.') {
        return false;
    }
    for (const char *c = host; *c != '\0'; c++) {
        bool letter = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z');
        bool digit = *c >= '0' && *c <= '9';
        if (!letter && !digit && *c != '-' && *c != '.' && *c != '_') {
            return false;
        }
        if (*c == '.' && c[1] == '.') {
            return false;
        }
    }
    return true;
}

static bool is_ipv6(const char *host) {
    struct in6_addr address;
    return inet_pton(AF_INET6, host, &address) == 1;
}

/* Takes the host up to the colon before the port; returns what follows it, or NULL. */
static const char *take_host(const char *text, struct ct_ticket *out) {
    bool brackets = text[0] == '[';
    const char *start = brackets ? text + 1 : text;
    const char *end = brackets ? strchr(start, ']') : strchr(start, ':');
    if (end == NULL || (size_t)(end - start) >= sizeof out->host) {
        return NULL;
    }
    memcpy(out->host, start, (size_t)(end - start));
    out->host[end - start] = '\0';
    if (!(brackets ? is_ipv6(out->host) : is_name(out->host))) {
        return NULL;
    }
    const char *colon = brackets ? end + 1 : end;
    return *colon == ':' ? colon + 1 : NULL;
}

/* 1 to 65535 in decimal without leading zeros; returns what follows, or NULL. */
static const char *take_port(const char *text, uint16_t *out) {
    uint32_t port = 0;
    if (*text == '0') {
        return NULL;
    }
    while (*text >= '0' && *text <= '9') {
        port = port * 10 + (uint32_t)(*text - '0');
        if (port > UINT16_MAX) {
            return NULL;
        }
        text++;
    }
    *out = (uint16_t)port;
    return port > 0 ? text : NULL;
}

enum ct_err ct_ticket_parse(const char *text, struct ct_ticket *out) {
    struct ct_ticket ticket;
    const char *rest = NULL;
    if (strncmp(text, scheme, sizeof scheme - 1) == 0) {
        rest = take_host(text + sizeof scheme - 1, &ticket);
    }
    if (rest != NULL) {
        rest = take_port(rest, &ticket.port);
    }
    if (rest == NULL || *rest != '/' || ct_hash_parse(rest + 1, &ticket.run_id) != CT_OK) {
        return ct_fail(CT_ERR_FORMAT,
                       "'%.120s' is no ticket: cotrain://HOST:PORT/ and the run's 64 hex digits, "
                       "as the operator's 'cotraind ticket' prints it",
                       text);
    }
    *out = ticket;
    return CT_OK;
}

void ct_ticket_format(const struct ct_ticket *ticket, char out[CT_TICKET_BYTES_MAX]) {
    char run[CT_HEX_BYTES];
    ct_hash_hex(&ticket->run_id, run);
    const char *form = strchr(ticket->host, ':') != NULL ? "%s[%s]:%u/%s" : "%s%s:%u/%s";
    int length =
        snprintf(out, CT_TICKET_BYTES_MAX, form, scheme, ticket->host, (unsigned)ticket->port, run);
    CT_ASSERT(length > 0 && length < CT_TICKET_BYTES_MAX);
}
