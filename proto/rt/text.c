#include <cotrain/text.h>

static bool is_continuation(uint8_t byte) {
    return (byte & 0xc0) == 0x80;
}

/* RFC 3629 section 4, less the control characters U+0080–009F. */
static size_t long_character(struct ct_bytes bytes) {
    const uint8_t *b = bytes.data;
    if (bytes.length < 2 || !is_continuation(b[1])) {
        return 0;
    }
    if (b[0] >= 0xc2 && b[0] <= 0xdf) {
        return b[0] == 0xc2 && b[1] < 0xa0 ? 0 : 2;
    }
    if (bytes.length < 3 || !is_continuation(b[2])) {
        return 0;
    }
    if ((b[0] & 0xf0) == 0xe0) {
        bool overlong = b[0] == 0xe0 && b[1] < 0xa0;
        bool surrogate = b[0] == 0xed && b[1] >= 0xa0;
        return overlong || surrogate ? 0 : 3;
    }
    if (bytes.length < 4 || !is_continuation(b[3]) || b[0] < 0xf0 || b[0] > 0xf4) {
        return 0;
    }
    bool overlong = b[0] == 0xf0 && b[1] < 0x90;
    bool too_large = b[0] == 0xf4 && b[1] >= 0x90;
    return overlong || too_large ? 0 : 4;
}

size_t ct_text_character(struct ct_bytes bytes) {
    if (bytes.length == 0) {
        return 0;
    }
    if (bytes.data[0] < 0x80) {
        return bytes.data[0] >= 0x20 && bytes.data[0] != 0x7f ? 1 : 0;
    }
    return long_character(bytes);
}

bool ct_text_printable(struct ct_bytes bytes) {
    while (bytes.length > 0) {
        size_t length = ct_text_character(bytes);
        if (length == 0) {
            return false;
        }
        bytes.data += length;
        bytes.length -= length;
    }
    return true;
}
