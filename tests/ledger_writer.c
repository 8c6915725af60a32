/* Writes a ledger for tests that look at it from outside, and that kill its writer.
 *
 * usage: ledger_writer DIR KEY COUNT BATCH [ORIGIN]
 *
 * Opens or makes the ledger DIR with the key in the file KEY (made if missing), appends numbered
 * entries until there are COUNT, and publishes and keeps a checkpoint after each BATCH. Prints the
 * verifier key, then the size after every publication: what is printed is promised. */
#include <cotrain/ledger.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static enum ct_err open_key(const char *path, struct ct_key **out) {
    enum ct_err err = ct_key_load(path, out);
    if (err != CT_ERR_NOT_FOUND) {
        return err;
    }
    CT_TRY(ct_key_generate(out));
    return ct_key_save(*out, path);
}

static enum ct_err open_ledger(const char *dir, const char *origin, const struct ct_key *key,
                               struct ct_ledger **out) {
    enum ct_err err = ct_ledger_open(dir, origin, key, out);
    return err == CT_ERR_NOT_FOUND ? ct_ledger_create(dir, origin, key, out) : err;
}

static enum ct_err append_one(struct ct_ledger *ledger) {
    char text[400];
    uint64_t index = ct_ledger_size(ledger);
    int length = snprintf(text, sizeof text, "{\"contribution\":%" PRIu64 "}%*s", index,
                          (int)(index * 37 % 301), "");
    return ct_ledger_append(ledger, (struct ct_bytes){(const uint8_t *)text, (size_t)length},
                            &index);
}

static enum ct_err write_entries(struct ct_ledger *ledger, uint64_t count, uint64_t batch) {
    do {
        for (uint64_t i = 0; i < batch && ct_ledger_size(ledger) < count; i++) {
            CT_TRY(append_one(ledger));
        }
        CT_TRY(ct_ledger_publish(ledger));
        CT_TRY(ct_ledger_keep(ledger));
        printf("%" PRIu64 "\n", ct_ledger_published(ledger));
        fflush(stdout);
    } while (ct_ledger_published(ledger) < count);
    return CT_OK;
}

int main(int argc, char **argv) {
    if (argc < 5 || argc > 6) {
        fputs("usage: ledger_writer DIR KEY COUNT BATCH [ORIGIN]\n", stderr);
        return 2;
    }
    const char *origin = argc == 6 ? argv[5] : "example.org/log";
    struct ct_key *key = NULL;
    struct ct_ledger *ledger = NULL;
    enum ct_err err = open_key(argv[2], &key);
    if (err == CT_OK) {
        err = open_ledger(argv[1], origin, key, &ledger);
    }
    if (err == CT_OK) {
        char vkey[CT_VKEY_BYTES_MAX];
        struct ct_hash public_key = ct_key_public(key);
        ct_vkey_format(origin, &public_key, vkey);
        puts(vkey);
        err = write_entries(ledger, strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
    }
    if (err != CT_OK) {
        fprintf(stderr, "ledger_writer: %s\n", ct_err_detail());
    }
    ct_ledger_close(ledger);
    ct_key_free(key);
    return err == CT_OK ? 0 : 1;
}
