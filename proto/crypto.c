#include <cotrain/assert.h>
#include <cotrain/buf.h>
#include <cotrain/crypto.h>

#include <assert.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* SHA-256 is the low-level one, which OpenSSL 3 deprecates and keeps: EVP's way to the same code
 * costs as much again as hashing a tree node (65 bytes: 10.6 against 4.9 million a second and
 * core). */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#define KEY_FILE_BYTES_MAX 4096

struct ct_key {
    EVP_PKEY *pkey;
};

static pthread_once_t init_once = PTHREAD_ONCE_INIT;
static void init(void) {
    CT_ASSERT(OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) == 1);
}

void ct_crypto_init(void) {
    CT_ASSERT(pthread_once(&init_once, init) == 0);
}

static_assert(sizeof(SHA256_CTX) <= sizeof(struct ct_sha256), "ct_sha256 holds OpenSSL's state");

struct ct_hash ct_sha256(struct ct_bytes bytes) {
    struct ct_sha256 sha;
    ct_sha256_init(&sha);
    ct_sha256_update(&sha, bytes.data, bytes.length);
    return ct_sha256_final(&sha);
}

void ct_sha256_init(struct ct_sha256 *sha) {
    CT_ASSERT(SHA256_Init((SHA256_CTX *)sha->state) == 1);
}

void ct_sha256_update(struct ct_sha256 *sha, const void *data, size_t length) {
    CT_ASSERT(length == 0 || SHA256_Update((SHA256_CTX *)sha->state, data, length) == 1);
}

struct ct_hash ct_sha256_final(struct ct_sha256 *sha) {
    struct ct_hash hash;
    CT_ASSERT(SHA256_Final(hash.bytes, (SHA256_CTX *)sha->state) == 1);
    return hash;
}

bool ct_hash_equal(const struct ct_hash *a, const struct ct_hash *b) {
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

bool ct_hash_is_zero(const struct ct_hash *hash) {
    static const struct ct_hash zero;
    return ct_hash_equal(hash, &zero);
}

void ct_hash_hex(const struct ct_hash *hash, char out[CT_HEX_BYTES]) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < sizeof hash->bytes; i++) {
        out[2 * i] = digits[hash->bytes[i] >> 4];
        out[2 * i + 1] = digits[hash->bytes[i] & 15];
    }
    out[CT_HEX_BYTES - 1] = '\0';
}

static int digit_value(char digit) {
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

enum ct_err ct_hash_parse(const char *hex, struct ct_hash *out) {
    struct ct_hash hash;
    /* A NUL is no digit, so nothing after the end is read. */
    for (size_t i = 0; i < sizeof hash.bytes; i++) {
        int high = digit_value(hex[2 * i]);
        int low = high < 0 ? -1 : digit_value(hex[2 * i + 1]);
        if (low < 0) {
            return ct_fail(CT_ERR_FORMAT, "'%.80s' is no digest of 64 lower-case hex digits", hex);
        }
        hash.bytes[i] = (uint8_t)(high << 4 | low);
    }
    if (hex[CT_HEX_BYTES - 1] != '\0') {
        return ct_fail(CT_ERR_FORMAT, "'%.80s' has more than the 64 digits of a digest", hex);
    }
    *out = hash;
    return CT_OK;
}

void ct_random(void *out, size_t length) {
    ct_crypto_init();
    CT_ASSERT(length <= INT_MAX && RAND_bytes(out, (int)length) == 1);
}

/* Takes pkey. */
static enum ct_err wrap(EVP_PKEY *pkey, struct ct_key **out) {
    struct ct_key *key = malloc(sizeof *key);
    if (key == NULL) {
        EVP_PKEY_free(pkey);
        return ct_fail(CT_ERR_MEMORY, "no memory for a key");
    }
    key->pkey = pkey;
    *out = key;
    return CT_OK;
}

enum ct_err ct_key_generate(struct ct_key **out) {
    ct_crypto_init();
    EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    CT_ASSERT(pkey != NULL);
    return wrap(pkey, out);
}

enum ct_err ct_key_save(const struct ct_key *key, const char *path) {
    BIO *bio = BIO_new(BIO_s_mem());
    CT_ASSERT(bio != NULL);
    CT_ASSERT(PEM_write_bio_PKCS8PrivateKey(bio, key->pkey, NULL, NULL, 0, NULL, NULL) == 1);
    char *text = NULL;
    long length = BIO_get_mem_data(bio, &text);
    CT_ASSERT(length > 0);
    struct ct_bytes bytes = {.data = (const uint8_t *)text, .length = (size_t)length};
    enum ct_err err = ct_file_create_private(path, bytes);
    /* A memory BIO clears what it frees. */
    BIO_free(bio);
    return err;
}

/* Instead of OpenSSL's own, which asks on the terminal. */
static int no_password(char *out, int size, int writing, void *user) {
    (void)out;
    (void)size;
    (void)writing;
    (void)user;
    return -1;
}

static enum ct_err parse_key(const char *path, struct ct_bytes text, struct ct_key **out) {
    BIO *bio = BIO_new_mem_buf(text.data, (int)text.length);
    CT_ASSERT(bio != NULL);
    EVP_PKEY *pkey = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
    BIO_free(bio);
    if (pkey == NULL || EVP_PKEY_get_id(pkey) != EVP_PKEY_ED25519) {
        ERR_clear_error();
        EVP_PKEY_free(pkey);
        return ct_fail(CT_ERR_FORMAT, "%s holds no unencrypted Ed25519 private key in PEM form",
                       path);
    }
    return wrap(pkey, out);
}

enum ct_err ct_key_load(const char *path, struct ct_key **out) {
    ct_crypto_init();
    struct stat status;
    if (stat(path, &status) == 0 && (status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        return ct_fail(CT_ERR_CONFIG, "others may use the key in %s: chmod 600 %s", path, path);
    }
    struct ct_buf text;
    ct_buf_init(&text, KEY_FILE_BYTES_MAX);
    /* All room at once: growing would leave copies of the key behind. */
    enum ct_err err = ct_buf_reserve(&text, KEY_FILE_BYTES_MAX);
    if (err == CT_OK) {
        err = ct_file_read(path, &text);
    }
    if (err == CT_OK) {
        err = parse_key(path, ct_buf_bytes(&text), out);
    }
    if (text.data != NULL) {
        OPENSSL_cleanse(text.data, text.capacity);
    }
    ct_buf_deinit(&text);
    return err;
}

void ct_key_free(struct ct_key *key) {
    if (key != NULL) {
        EVP_PKEY_free(key->pkey);
        free(key);
    }
}

struct ct_hash ct_key_public(const struct ct_key *key) {
    struct ct_hash public_key;
    size_t length = sizeof public_key.bytes;
    CT_ASSERT(EVP_PKEY_get_raw_public_key(key->pkey, public_key.bytes, &length) == 1);
    CT_ASSERT(length == sizeof public_key.bytes);
    return public_key;
}

void *ct_key_native(const struct ct_key *key) {
    return key->pkey;
}

struct ct_signature ct_key_sign(const struct ct_key *key, struct ct_bytes message) {
    struct ct_signature signature;
    size_t length = sizeof signature.bytes;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    CT_ASSERT(context != NULL);
    CT_ASSERT(EVP_DigestSignInit(context, NULL, NULL, NULL, key->pkey) == 1);
    CT_ASSERT(EVP_DigestSign(context, signature.bytes, &length, message.data, message.length) == 1);
    CT_ASSERT(length == sizeof signature.bytes);
    EVP_MD_CTX_free(context);
    return signature;
}

bool ct_verify(const struct ct_hash *public_key, struct ct_bytes message,
               const struct ct_signature *signature) {
    ct_crypto_init();
    /* Any 32 bytes are taken here; those that are no point fail below. */
    EVP_PKEY *pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public_key->bytes,
                                                 sizeof public_key->bytes);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    CT_ASSERT(pkey != NULL && context != NULL);
    CT_ASSERT(EVP_DigestVerifyInit(context, NULL, NULL, NULL, pkey) == 1);
    int verdict = EVP_DigestVerify(context, signature->bytes, sizeof signature->bytes, message.data,
                                   message.length);
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(pkey);
    ERR_clear_error();
    return verdict == 1;
}

size_t ct_base64_encode(struct ct_bytes bytes, char *out) {
    CT_ASSERT(bytes.length <= INT_MAX / 2);
    if (bytes.length == 0) {
        out[0] = '\0';
        return 0;
    }
    int length = EVP_EncodeBlock((unsigned char *)out, bytes.data, (int)bytes.length);
    CT_ASSERT(length > 0);
    return (size_t)length;
}

enum ct_err ct_base64_decode(const char *text, size_t length, uint8_t *out, size_t capacity,
                             size_t *out_length) {
    if (length % 4 != 0 || length > INT_MAX / 2) {
        return ct_fail(CT_ERR_FORMAT, "base64 text of %zu characters is no multiple of 4", length);
    }
    if (length == 0) {
        *out_length = 0;
        return CT_OK;
    }
    size_t padding = (size_t)(text[length - 1] == '=') + (size_t)(text[length - 2] == '=');
    size_t decoded_length = length / 4 * 3 - padding;
    if (decoded_length > capacity) {
        return ct_fail(CT_ERR_TOO_LARGE, "base64 text holds %zu bytes, more than the %zu allowed",
                       decoded_length, capacity);
    }
    /* EVP_DecodeBlock writes zero bytes for the padding, and skips blanks around the text. */
    uint8_t *decoded = calloc(length / 4, 3);
    char *again = malloc(length + 1);
    enum ct_err err = CT_OK;
    if (decoded == NULL || again == NULL) {
        err = ct_fail(CT_ERR_MEMORY, "no memory to decode %zu characters", length);
    } else if (EVP_DecodeBlock(decoded, (const unsigned char *)text, (int)length) < 0 ||
               ct_base64_encode((struct ct_bytes){decoded, decoded_length}, again) != length ||
               memcmp(text, again, length) != 0) {
        ERR_clear_error();
        err = ct_fail(CT_ERR_FORMAT, "not canonical base64");
    } else {
        memcpy(out, decoded, decoded_length);
        *out_length = decoded_length;
    }
    free(decoded);
    free(again);
    return err;
}

/* "DSSEv1 <len(type)> <type> <len(payload)> <payload>", lengths in decimal. Ed25519 hashes its
 * message twice, so it is made in one piece. */
static uint8_t *dsse_encoding(const char *type, struct ct_bytes payload, struct ct_bytes *out) {
    CT_ASSERT(payload.length <= SIZE_MAX / 2);
    int head = snprintf(NULL, 0, "DSSEv1 %zu %s %zu ", strlen(type), type, payload.length);
    CT_ASSERT(head > 0);
    uint8_t *data = malloc((size_t)head + 1 + payload.length);
    CT_ASSERT(data != NULL);
    snprintf((char *)data, (size_t)head + 1, "DSSEv1 %zu %s %zu ", strlen(type), type,
             payload.length);
    if (payload.length > 0) {
        memcpy(data + head, payload.data, payload.length);
    }
    *out = (struct ct_bytes){.data = data, .length = (size_t)head + payload.length};
    return data;
}

struct ct_signature ct_dsse_sign(const struct ct_key *key, const char *type,
                                 struct ct_bytes payload) {
    struct ct_bytes message;
    uint8_t *data = dsse_encoding(type, payload, &message);
    struct ct_signature signature = ct_key_sign(key, message);
    free(data);
    return signature;
}

bool ct_dsse_verify(const struct ct_hash *public_key, const char *type, struct ct_bytes payload,
                    const struct ct_signature *signature) {
    struct ct_bytes message;
    uint8_t *data = dsse_encoding(type, payload, &message);
    bool good = ct_verify(public_key, message, signature);
    free(data);
    return good;
}
