#include <cotrain/philox.h>

static uint32_t little_endian(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

struct ct_philox ct_philox_make(const struct ct_hash *seed, enum ct_stream stream) {
    return (struct ct_philox){{little_endian(seed->bytes), little_endian(seed->bytes + 4)},
                              (uint32_t)stream};
}

void ct_philox_block(const struct ct_philox *philox, uint64_t index, uint32_t sub,
                     uint32_t out[4]) {
    uint32_t counter[4] = {(uint32_t)index, (uint32_t)(index >> 32), sub, philox->stream};
    uint32_t key[2] = {philox->key[0], philox->key[1]};
    for (int round = 0; round < 10; round++) {
        const uint64_t even = (uint64_t)counter[0] * 0xd2511f53u;
        const uint64_t odd = (uint64_t)counter[2] * 0xcd9e8d57u;
        const uint32_t next0 = (uint32_t)(odd >> 32) ^ counter[1] ^ key[0];
        const uint32_t next2 = (uint32_t)(even >> 32) ^ counter[3] ^ key[1];
        counter[0] = next0;
        counter[1] = (uint32_t)odd;
        counter[2] = next2;
        counter[3] = (uint32_t)even;
        key[0] += 0x9e3779b9u;
        key[1] += 0xbb67ae85u;
    }
    for (int i = 0; i < 4; i++) {
        out[i] = counter[i];
    }
}
