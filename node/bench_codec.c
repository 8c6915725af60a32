/* cotrain bench codec: an update to its bytes, and back. */
#include "bench.h"

#include <cotrain/codec.h>
#include <cotrain/crypto.h>

#include <stdlib.h>
#include <string.h>

static const char usage[] = "usage: cotrain bench codec [OPTIONS]\n"
                            "\n"
                            "Compresses a change of a whole model and reads it back. `encode` "
                            "streams 16 bytes a parameter\n"
                            "(base, local, the residual in and out); its yardstick is the "
                            "bandwidth of the memory. `decode`\n"
                            "reads the payload; its yardstick is SHA-256 of the same bytes, which "
                            "a receiver computes as well.\n"
                            "\n"
                            "  --workload NAME  the model: T, S or M (S)\n" CT_BENCH_USAGE;

struct codec {
    const struct ct_workload *workload;
    struct ct_layout layout;
    struct ct_chunks chunks;
    float *base, *local, *residual;
    uint8_t *payload;
    size_t payload_bytes;
    struct ct_hash digest;
    enum ct_err err; /* of a decoding */
};

static const struct ct_update_header header = {.steps = 30};

static void encode(void *context) {
    struct codec *codec = context;
    ct_update_encode(&codec->chunks, &header, codec->base, codec->local, codec->residual,
                     codec->payload, &codec->payload_bytes);
}

static void decode(void *context) {
    struct codec *codec = context;
    struct ct_update update;
    const struct ct_bytes payload = {codec->payload, codec->payload_bytes};
    const enum ct_err err = ct_update_decode(&codec->chunks, payload, &update);
    if (err == CT_OK) {
        ct_update_deinit(&update);
    }
    codec->err = err != CT_OK ? err : codec->err;
}

static void digest(void *context) {
    struct codec *codec = context;
    codec->digest = ct_sha256((struct ct_bytes){codec->payload, codec->payload_bytes});
}

static enum ct_err prepare(struct codec *codec) {
    CT_TRY(ct_layout_init(&codec->layout, &codec->workload->shape));
    CT_TRY(ct_chunks_init(&codec->chunks, &codec->layout));
    const size_t count = codec->layout.parameters;
    codec->base = malloc(count * sizeof(float));
    codec->local = malloc(count * sizeof(float));
    codec->residual = calloc(count, sizeof(float));
    codec->payload = malloc(ct_update_bytes_max(&codec->chunks));
    if (codec->base == NULL || codec->local == NULL || codec->residual == NULL ||
        codec->payload == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for a model of %zu parameters", count);
    }
    ct_bench_noise(codec->base, count, 0.02f, 1);
    ct_bench_noise(codec->local, count, 0.001f, 2);
    for (size_t i = 0; i < count; i++) {
        codec->local[i] += codec->base[i];
    }
    return CT_OK;
}

static enum ct_err row(struct ct_bench *bench, const struct codec *codec, const char *op,
                       double bytes, double seconds, const char *yardstick, double yard) {
    const double rate = bytes / seconds * 1e-9;
    const double parameters = (double)codec->layout.parameters;
    return ct_bench_row(bench,
                        json_pack("{s:s, s:s, s:I, s:I, s:f, s:i, s:f, s:f, s:s, s:f, s:f}", "op",
                                  op, "workload", codec->workload->name, "parameters",
                                  (json_int_t)codec->layout.parameters, "payload_bytes",
                                  (json_int_t)codec->payload_bytes, "bits_per_parameter",
                                  8.0 * (double)codec->payload_bytes / parameters, "threads", 1,
                                  "ms", seconds * 1e3, "gbytes_per_s", rate, "yardstick", yardstick,
                                  "yardstick_gbytes_per_s", yard, "ratio", rate / yard));
}

static enum ct_err measure(struct ct_bench *bench, struct codec *codec) {
    double memory;
    CT_TRY(ct_bench_bandwidth(1, bench->seconds, &memory));
    const double encode_s = ct_bench_time(encode, codec, bench->seconds);
    CT_TRY(row(bench, codec, "encode", 16.0 * (double)codec->layout.parameters, encode_s, "memory",
               memory));
    const struct ct_rival rivals[] = {{decode, codec}, {digest, codec}};
    double medians_s[2];
    ct_bench_race(rivals, 2, bench->seconds, medians_s);
    CT_TRY(codec->err);
    const double bytes = (double)codec->payload_bytes;
    return row(bench, codec, "decode", bytes, medians_s[0], "SHA-256", bytes / medians_s[1] * 1e-9);
}

static enum ct_err run(struct ct_bench *bench) {
    struct codec *codec = bench->user;
    enum ct_err err = prepare(codec);
    if (err == CT_OK) {
        err = measure(bench, codec);
    }
    free(codec->payload);
    free(codec->residual);
    free(codec->local);
    free(codec->base);
    ct_chunks_deinit(&codec->chunks);
    ct_layout_deinit(&codec->layout);
    return err;
}

static enum ct_err take(struct ct_bench *bench, int option, const char *text) {
    (void)option;
    struct codec *codec = bench->user;
    return ct_workload_take(text, &codec->workload);
}

int ct_bench_codec(int argc, char **argv) {
    static const struct option options[] = {
        {"workload", required_argument, NULL, 1},
        {NULL, 0, NULL, 0},
    };
    struct codec codec = {.workload = ct_workload_find("S")};
    struct ct_bench bench = {.name = "codec",
                             .usage = usage,
                             .options = options,
                             .take = take,
                             .run = run,
                             .user = &codec};
    return ct_bench_main(&bench, argc, argv);
}
