/* The join ticket: cotrain://host:port/RUNID, with no character that a shell interprets (but for
 * the brackets around an IPv6 address, without which its port could not be told). */
#ifndef COTRAIN_TICKET_H
#define COTRAIN_TICKET_H

#include <cotrain/err.h>
#include <cotrain/types.h>

#define CT_TICKET_BYTES_MAX 384

struct ct_ticket {
    char host[256]; /* a name, an IPv4 address, or an IPv6 address without brackets */
    uint16_t port;
    struct ct_hash run_id;
};

/* Strict: the scheme in lower case, a host of letters, digits and "-._" or an IPv6 address in
 * brackets, a port from 1 to 65535 without leading zeros, 64 lower-case hex digits, nothing after
 * them. CT_ERR_FORMAT. */
CT_MUST_CHECK enum ct_err ct_ticket_parse(const char *text, struct ct_ticket *out);
void ct_ticket_format(const struct ct_ticket *ticket, char out[CT_TICKET_BYTES_MAX]);

#endif
