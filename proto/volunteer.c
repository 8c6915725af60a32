#include "message.h"

#include <cotrain/assert.h>
#include <cotrain/volunteer.h>

#include <stdio.h>
#include <string.h>

#include <cotrain.pb-c.h>

#define SALT_BYTES 32u

static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_. ";

bool ct_volunteer_is_empty(const struct ct_volunteer *volunteer) {
    return volunteer->name[0] == '\0' && volunteer->region[0] == '\0';
}

bool ct_volunteer_equal(const struct ct_volunteer *a, const struct ct_volunteer *b) {
    return strcmp(a->name, b->name) == 0 && strcmp(a->region, b->region) == 0;
}

enum ct_err ct_volunteer_set(char field[33], const char *what, const char *text) {
    const size_t length = strlen(text);
    if (length > 32 || strspn(text, allowed) != length ||
        (length > 0 && (text[0] == ' ' || text[length - 1] == ' '))) {
        return ct_fail(CT_ERR_FORMAT,
                       "a volunteer's %s has at most 32 characters: letters, digits, - _ . and "
                       "spaces between them",
                       what);
    }
    memcpy(field, text, length + 1);
    return CT_OK;
}

/* What is signed and hashed: 32 random bytes, then the profile. */
static enum ct_err bind(struct ct_bytes salt, struct ct_bytes profile, struct ct_buf *out) {
    CT_TRY(ct_buf_append(out, salt.data, salt.length));
    return ct_buf_append(out, profile.data, profile.length);
}

static enum ct_err encode_profile(const struct ct_volunteer *volunteer,
                                  const struct ct_hash *run_id, struct ct_buf *out) {
    struct ct_volunteer copy = *volunteer;
    Cotrain__Profile message = COTRAIN__PROFILE__INIT;
    message.version = 1;
    message.run_id = ct_field_put_hash(run_id);
    message.name = copy.name;
    message.region = copy.region;
    return ct_message_encode(&message.base, out);
}

static enum ct_err seal(struct ct_bytes salt, struct ct_bytes profile, const struct ct_key *key,
                        struct ct_buf *bound, struct ct_buf *out) {
    CT_TRY(bind(salt, profile, bound));
    const struct ct_signature signature = ct_dsse_sign(key, CT_TYPE_PROFILE, ct_buf_bytes(bound));
    Cotrain__ProfileRecord message = COTRAIN__PROFILE_RECORD__INIT;
    message.salt = ct_field_put_bytes(salt);
    message.profile = ct_field_put_bytes(profile);
    message.signature =
        ct_field_put_bytes((struct ct_bytes){signature.bytes, sizeof signature.bytes});
    return ct_message_encode(&message.base, out);
}

enum ct_err ct_volunteer_sign(const struct ct_volunteer *volunteer, const struct ct_hash *run_id,
                              const struct ct_key *key, struct ct_buf *out) {
    CT_ASSERT(!ct_volunteer_is_empty(volunteer));
    struct ct_buf profile, bound;
    uint8_t salt[SALT_BYTES];
    ct_random(salt, sizeof salt);
    ct_buf_init(&profile, CT_PROFILE_BYTES_MAX);
    ct_buf_init(&bound, CT_PROFILE_BYTES_MAX);
    enum ct_err err = encode_profile(volunteer, run_id, &profile);
    if (err == CT_OK) {
        err = seal((struct ct_bytes){salt, sizeof salt}, ct_buf_bytes(&profile), key, &bound, out);
    }
    ct_buf_deinit(&profile);
    ct_buf_deinit(&bound);
    return err;
}

static enum ct_err read_profile(const Cotrain__Profile *message, const struct ct_hash *run_id,
                                struct ct_volunteer *out) {
    struct ct_hash run;
    if (message->version != 1) {
        return ct_fail(CT_ERR_FORMAT, "a profile of version %u is not known here",
                       message->version);
    }
    CT_TRY(ct_field_get_hash(&message->run_id, "a profile's run id", &run));
    CT_TRY(ct_volunteer_set(out->name, "name", message->name));
    CT_TRY(ct_volunteer_set(out->region, "region", message->region));
    if (ct_volunteer_is_empty(out)) {
        return ct_fail(CT_ERR_FORMAT, "a profile shows nothing");
    }
    if (!ct_hash_equal(&run, run_id)) {
        return ct_fail(CT_ERR_RULE, "a profile was made for another run");
    }
    return CT_OK;
}

static enum ct_err check_profile(struct ct_bytes profile, const struct ct_hash *run_id,
                                 struct ct_volunteer *out) {
    ProtobufCMessage *message;
    CT_TRY(ct_message_decode(&cotrain__profile__descriptor, profile, &message));
    enum ct_err err = read_profile((const Cotrain__Profile *)(void *)message, run_id, out);
    ct_message_free(message);
    return err;
}

static enum ct_err check_record(const Cotrain__ProfileRecord *message, struct ct_buf *bound,
                                const struct ct_hash *run_id, const struct ct_hash *public_key,
                                struct ct_volunteer *out) {
    struct ct_signature signature;
    const struct ct_bytes salt = {message->salt.data, message->salt.len};
    const struct ct_bytes profile = {message->profile.data, message->profile.len};
    if (salt.length != SALT_BYTES) {
        return ct_fail(CT_ERR_FORMAT, "a profile's salt has %zu bytes", salt.length);
    }
    CT_TRY(ct_field_get_fixed(&message->signature, sizeof signature.bytes, "a profile's signature",
                              signature.bytes));
    CT_TRY(check_profile(profile, run_id, out));
    CT_TRY(bind(salt, profile, bound));
    if (!ct_dsse_verify(public_key, CT_TYPE_PROFILE, ct_buf_bytes(bound), &signature)) {
        return ct_fail(CT_ERR_SIGNATURE, "a profile's signature does not verify");
    }
    return CT_OK;
}

enum ct_err ct_volunteer_open(struct ct_bytes record, const struct ct_hash *run_id,
                              const struct ct_hash *public_key, struct ct_volunteer *out,
                              struct ct_hash *out_digest) {
    if (record.length > CT_PROFILE_BYTES_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "a profile of %zu bytes is over the maximum of %u",
                       record.length, CT_PROFILE_BYTES_MAX);
    }
    ProtobufCMessage *message;
    struct ct_volunteer volunteer;
    struct ct_buf bound;
    CT_TRY(ct_message_decode(&cotrain__profile_record__descriptor, record, &message));
    ct_buf_init(&bound, CT_PROFILE_BYTES_MAX);
    enum ct_err err = check_record((const Cotrain__ProfileRecord *)(void *)message, &bound, run_id,
                                   public_key, &volunteer);
    if (err == CT_OK && out != NULL) {
        *out = volunteer;
    }
    if (err == CT_OK && out_digest != NULL) {
        *out_digest = ct_sha256(ct_buf_bytes(&bound));
    }
    ct_buf_deinit(&bound);
    ct_message_free(message);
    return err;
}
