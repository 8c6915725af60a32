#include "web.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static bool take_digits(const char **at, int count) {
    for (int i = 0; i < count; i++) {
        if (!isdigit((unsigned char)(*at)[i])) {
            return false;
        }
    }
    *at += count;
    return true;
}

/* Decimal without leading zeros, least to most. */
static bool take_number(const char **at, unsigned least, unsigned most) {
    unsigned value = 0;
    const char *start = *at;
    while (isdigit((unsigned char)**at) && *at - start < 4) {
        value = value * 10 + (unsigned)(**at - '0');
        (*at)++;
    }
    return *at > start && (*start != '0' || *at == start + 1) && value >= least && value <= most;
}

/* tlog-tiles: <L>/<N>[.p/<W>] or entries/<N>[.p/<W>], N in groups of three digits, all but the last
 * after an x. */
static bool is_tile(const char *at) {
    if (strncmp(at, "entries/", 8) == 0) {
        at += 8;
    } else if (take_number(&at, 0, 63) && *at == '/') {
        at++;
    } else {
        return false;
    }
    while (*at == 'x') {
        at++;
        if (!take_digits(&at, 3) || *at != '/') {
            return false;
        }
        at++;
    }
    if (!take_digits(&at, 3)) {
        return false;
    }
    if (strncmp(at, ".p/", 3) == 0) {
        at += 3;
        if (!take_number(&at, 1, 255)) {
            return false;
        }
    }
    return *at == '\0';
}

/* Of a log, in entries: decimal without leading zeros. */
static bool is_size(const char *at) {
    const size_t digits = strspn(at, "0123456789");
    return digits > 0 && digits <= 18 && (at[0] != '0' || digits == 1) && at[digits] == '\0';
}

static bool take_hex(const char **at, int count, char **out) {
    for (int i = 0; i < count; i++) {
        char c = (*at)[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) {
            return false;
        }
        *(*out)++ = c;
    }
    *at += count;
    return true;
}

static bool is_blob(const char *at, char *file) {
    if (!take_hex(&at, 2, &file)) {
        return false;
    }
    *file++ = '/';
    if (*at == '/') {
        at++;
    }
    if (!take_hex(&at, 62, &file) || *at != '\0') {
        return false;
    }
    *file = '\0';
    return true;
}

static bool is_profile(const char *at, char *file) {
    if (!take_hex(&at, 64, &file) || *at != '\0') {
        return false;
    }
    *file = '\0';
    return true;
}

enum ct_web_kind ct_web_route(const char *path, char *file) {
    file[0] = '\0';
    if (strcmp(path, "/") == 0) {
        return CT_WEB_PAGE;
    }
    if (strcmp(path, "/status.json") == 0) {
        return CT_WEB_STATUS;
    }
    if (strcmp(path, "/checkpoint") == 0) {
        memcpy(file, "checkpoint", sizeof "checkpoint");
        return CT_WEB_NOTE;
    }
    if (strcmp(path, "/witnessed") == 0) {
        memcpy(file, "witnessed", sizeof "witnessed");
        return CT_WEB_NOTE;
    }
    if (strcmp(path, "/checkpoints") == 0) {
        return CT_WEB_KEPT;
    }
    if (strncmp(path, "/checkpoints/", 13) == 0 && is_size(path + 13)) {
        memcpy(file, path + 1, strlen(path));
        return CT_WEB_NOTE;
    }
    if (strncmp(path, "/tile/", 6) == 0 && strlen(path) < CT_WEB_FILE_MAX && is_tile(path + 6)) {
        memcpy(file, path + 1, strlen(path));
        return CT_WEB_TILE;
    }
    if (strncmp(path, "/blobs/", 7) == 0 && is_blob(path + 7, file)) {
        return CT_WEB_BLOB;
    }
    if (strncmp(path, "/profiles/", 10) == 0 && is_profile(path + 10, file)) {
        return CT_WEB_PROFILE;
    }
    file[0] = '\0';
    return CT_WEB_NOTHING;
}

/* A number of at most 18 digits, so that nothing overflows. */
static bool take_position(const char **at, uint64_t *out) {
    const char *start = *at;
    *out = 0;
    while (isdigit((unsigned char)**at) && *at - start < 18) {
        *out = *out * 10 + (uint64_t)(**at - '0');
        (*at)++;
    }
    return *at > start;
}

unsigned ct_web_range(const char *header, uint64_t length, uint64_t *out_first,
                      uint64_t *out_count) {
    *out_first = 0;
    *out_count = length;
    if (header == NULL || strncmp(header, "bytes=", 6) != 0) {
        return 200;
    }
    const char *at = header + 6;
    uint64_t first = 0, last = 0;
    if (*at == '-') {
        at++;
        if (!take_position(&at, &last) || *at != '\0') {
            return 200;
        }
        if (last == 0 || length == 0) {
            return 416;
        }
        *out_count = last < length ? last : length;
        *out_first = length - *out_count;
        return 206;
    }
    if (!take_position(&at, &first) || *at++ != '-') {
        return 200;
    }
    last = UINT64_MAX;
    if (*at != '\0' && (!take_position(&at, &last) || *at != '\0' || last < first)) {
        return 200;
    }
    if (first >= length) {
        return 416;
    }
    last = last < length ? last : length - 1;
    *out_first = first;
    *out_count = last - first + 1;
    return 206;
}
