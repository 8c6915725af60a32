#include "listen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool ct_listen_parse(const char *text, char host[CT_LISTEN_HOST_BYTES], uint16_t *port) {
    const char *colon = strrchr(text, ':');
    size_t length = colon == NULL ? 0 : (size_t)(colon - text);
    char *end = NULL;
    errno = 0;
    const unsigned long value = colon == NULL ? 0 : strtoul(colon + 1, &end, 10);
    if (length >= 2 && text[0] == '[' && text[length - 1] == ']') {
        text++;
        length -= 2;
    }
    if (length == 0 || length >= CT_LISTEN_HOST_BYTES || errno != 0 || end == colon + 1 ||
        colon[1] < '0' || colon[1] > '9' || *end != '\0' || value > UINT16_MAX) {
        return false;
    }
    memcpy(host, text, length);
    host[length] = '\0';
    *port = (uint16_t)value;
    return true;
}

void ct_listen_url(const char *host, uint16_t port, char out[CT_LISTEN_URL_BYTES]) {
    const bool version_6 = strchr(host, ':') != NULL;
    snprintf(out, CT_LISTEN_URL_BYTES, "http://%s%s%s:%u/", version_6 ? "[" : "", host,
             version_6 ? "]" : "", (unsigned)port);
}
