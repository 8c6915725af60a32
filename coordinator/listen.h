/* Where a command listens: "HOST:PORT" or "[V6]:PORT". */
#ifndef COORDINATOR_LISTEN_H
#define COORDINATOR_LISTEN_H

#include <stdbool.h>
#include <stdint.h>

#define CT_LISTEN_HOST_BYTES 256u
/* False: it is neither. A port of 0 is any free one. */
bool ct_listen_parse(const char *text, char host[CT_LISTEN_HOST_BYTES], uint16_t *port);

/* "http://HOST:PORT/" with brackets where the address needs them. */
#define CT_LISTEN_URL_BYTES (CT_LISTEN_HOST_BYTES + 24u)
void ct_listen_url(const char *host, uint16_t port, char out[CT_LISTEN_URL_BYTES]);

#endif
