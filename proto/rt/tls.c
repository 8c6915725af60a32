#include "tls.h"

#include <cotrain/assert.h>

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

/* Certificate list of the other side, encoded. Ours has about 300 bytes. */
#define CERTIFICATES_BYTES_MAX 4096

struct ct_tls_context {
    SSL_CTX *ssl;
};

struct ct_tls {
    SSL *ssl;
    BIO *in, *out; /* owned by ssl */
    bool has_expected;
    struct ct_hash expected;
    struct ct_hash peer_key;
    const char *objection; /* why the certificate was refused, if it was */
};

static enum ct_err library_failed(const char *what) {
    char text[200] = "no reason given";
    unsigned long code = ERR_get_error();
    if (code != 0) {
        const char *reason = ERR_reason_error_string(code);
        if (reason != NULL) {
            snprintf(text, sizeof text, "%s", reason);
        } else {
            ERR_error_string_n(code, text, sizeof text);
        }
    }
    ERR_clear_error();
    return ct_fail(CT_ERR_TLS, "%s: %s", what, text);
}

/* In place of chain building: the raw key is the identity, all else is ignored. */
static int judge_certificate(X509_STORE_CTX *store, void *unused) {
    (void)unused;
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    CT_ASSERT(ssl != NULL);
    struct ct_tls *tls = SSL_get_app_data(ssl);
    X509 *leaf = X509_STORE_CTX_get0_cert(store);
    EVP_PKEY *key = leaf != NULL ? X509_get0_pubkey(leaf) : NULL;
    struct ct_hash raw;
    size_t length = sizeof raw.bytes;
    if (key == NULL || EVP_PKEY_get_id(key) != EVP_PKEY_ED25519 ||
        EVP_PKEY_get_raw_public_key(key, raw.bytes, &length) != 1 || length != sizeof raw.bytes ||
        ct_hash_is_zero(&raw)) {
        tls->objection = "the other side's certificate holds no Ed25519 key";
    } else if (tls->has_expected && !ct_hash_equal(&raw, &tls->expected)) {
        tls->objection = "the other side shows another key than the one expected";
    } else {
        tls->peer_key = raw;
        X509_STORE_CTX_set_error(store, X509_V_OK);
        return 1;
    }
    X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
    return 0;
}

/* Self-signed, without dates that mean anything. NULL on failure. */
static X509 *make_certificate(EVP_PKEY *key) {
    X509 *certificate = X509_new();
    if (certificate == NULL) {
        return NULL;
    }
    X509_NAME *name = X509_get_subject_name(certificate);
    if (X509_set_version(certificate, X509_VERSION_3) != 1 ||
        ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1) != 1 ||
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"cotrain", -1,
                                   -1, 0) != 1 ||
        X509_set_issuer_name(certificate, name) != 1 ||
        ASN1_TIME_set_string(X509_getm_notBefore(certificate), "19700101000000Z") != 1 ||
        ASN1_TIME_set_string(X509_getm_notAfter(certificate), "99991231235959Z") != 1 ||
        X509_set_pubkey(certificate, key) != 1 || X509_sign(certificate, key, NULL) == 0) {
        X509_free(certificate);
        return NULL;
    }
    return certificate;
}

static bool configure(SSL_CTX *ssl, bool server) {
    SSL_CTX_set_options(ssl, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_max_cert_list(ssl, CERTIFICATES_BYTES_MAX);
    SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER | (server ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
    SSL_CTX_set_cert_verify_callback(ssl, judge_certificate, NULL);
    return SSL_CTX_set_min_proto_version(ssl, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set_max_proto_version(ssl, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set_num_tickets(ssl, 0) == 1 && SSL_CTX_set_max_early_data(ssl, 0) == 1 &&
           SSL_CTX_set_recv_max_early_data(ssl, 0) == 1 &&
           SSL_CTX_set1_sigalgs_list(ssl, "ed25519") == 1 &&
           SSL_CTX_set1_client_sigalgs_list(ssl, "ed25519") == 1 &&
           SSL_CTX_set1_groups_list(ssl, "X25519") == 1;
}

enum ct_err ct_tls_context_open(bool server, const struct ct_key *key,
                                struct ct_tls_context **out) {
    /* libuv writes without MSG_NOSIGNAL. */
    signal(SIGPIPE, SIG_IGN);
    ct_crypto_init();
    ERR_clear_error();
    enum ct_err err = CT_ERR_TLS;
    EVP_PKEY *native = ct_key_native(key);
    X509 *certificate = make_certificate(native);
    struct ct_tls_context *context = calloc(1, sizeof *context);
    if (context == NULL) {
        err = ct_fail(CT_ERR_MEMORY, "out of memory for a TLS context");
        goto out;
    }
    context->ssl = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    if (certificate == NULL || context->ssl == NULL || !configure(context->ssl, server) ||
        SSL_CTX_use_certificate(context->ssl, certificate) != 1 ||
        SSL_CTX_use_PrivateKey(context->ssl, native) != 1) {
        err = library_failed("TLS cannot be set up");
        goto out;
    }
    *out = context;
    context = NULL;
    err = CT_OK;
out:
    ct_tls_context_close(context);
    X509_free(certificate);
    return err;
}

void ct_tls_context_close(struct ct_tls_context *context) {
    if (context != NULL) {
        SSL_CTX_free(context->ssl);
        free(context);
    }
}

enum ct_err ct_tls_open(struct ct_tls_context *context, const struct ct_hash *expected,
                        struct ct_tls **out) {
    ERR_clear_error();
    struct ct_tls *tls = calloc(1, sizeof *tls);
    if (tls == NULL) {
        return ct_fail(CT_ERR_MEMORY, "out of memory for a TLS session");
    }
    tls->ssl = SSL_new(context->ssl);
    tls->in = BIO_new(BIO_s_mem());
    tls->out = BIO_new(BIO_s_mem());
    if (tls->ssl == NULL || tls->in == NULL || tls->out == NULL) {
        BIO_free(tls->in);
        BIO_free(tls->out);
        SSL_free(tls->ssl);
        free(tls);
        return ct_fail(CT_ERR_MEMORY, "out of memory for a TLS session");
    }
    BIO_set_mem_eof_return(tls->in, -1);
    BIO_set_mem_eof_return(tls->out, -1);
    SSL_set_bio(tls->ssl, tls->in, tls->out);
    SSL_set_app_data(tls->ssl, tls);
    if (SSL_is_server(tls->ssl)) {
        SSL_set_accept_state(tls->ssl);
    } else {
        SSL_set_connect_state(tls->ssl);
    }
    if (expected != NULL) {
        tls->has_expected = true;
        tls->expected = *expected;
    }
    *out = tls;
    return CT_OK;
}

void ct_tls_close(struct ct_tls *tls) {
    if (tls != NULL) {
        SSL_free(tls->ssl);
        free(tls);
    }
}

enum ct_err ct_tls_feed(struct ct_tls *tls, const void *data, size_t length) {
    CT_ASSERT(length <= INT_MAX);
    if (length > 0 && BIO_write(tls->in, data, (int)length) != (int)length) {
        return ct_fail(CT_ERR_MEMORY, "out of memory for received bytes");
    }
    return CT_OK;
}

enum ct_err ct_tls_handshake(struct ct_tls *tls, bool *out_done) {
    ERR_clear_error();
    int result = SSL_do_handshake(tls->ssl);
    *out_done = result == 1;
    if (result == 1) {
        CT_ASSERT(!ct_hash_is_zero(&tls->peer_key));
        return CT_OK;
    }
    int reason = SSL_get_error(tls->ssl, result);
    if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) {
        return CT_OK;
    }
    if (tls->objection != NULL) {
        ERR_clear_error();
        return ct_fail(CT_ERR_TLS, "%s", tls->objection);
    }
    return library_failed("TLS handshake failed");
}

const struct ct_hash *ct_tls_peer_key(const struct ct_tls *tls) {
    return &tls->peer_key;
}

enum ct_err ct_tls_read(struct ct_tls *tls, void *out, size_t capacity, size_t *out_length,
                        bool *out_closed) {
    ERR_clear_error();
    *out_length = 0;
    *out_closed = false;
    size_t length = 0;
    int result = SSL_read_ex(tls->ssl, out, capacity, &length);
    if (result == 1) {
        *out_length = length;
        return CT_OK;
    }
    switch (SSL_get_error(tls->ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return CT_OK;
    case SSL_ERROR_ZERO_RETURN:
        *out_closed = true;
        return CT_OK;
    default:
        return library_failed("TLS failed while reading");
    }
}

enum ct_err ct_tls_write(struct ct_tls *tls, const void *data, size_t length) {
    ERR_clear_error();
    size_t written = 0;
    if (length > 0 && (SSL_write_ex(tls->ssl, data, length, &written) != 1 || written != length)) {
        return library_failed("TLS failed while writing");
    }
    return CT_OK;
}

void ct_tls_shutdown(struct ct_tls *tls) {
    ERR_clear_error();
    if (SSL_is_init_finished(tls->ssl)) {
        SSL_shutdown(tls->ssl);
        ERR_clear_error();
    }
}

size_t ct_tls_pending(const struct ct_tls *tls) {
    return BIO_ctrl_pending(tls->out);
}

void ct_tls_take(struct ct_tls *tls, void *out, size_t length) {
    CT_ASSERT(length <= INT_MAX && length <= ct_tls_pending(tls));
    int taken = BIO_read(tls->out, out, (int)length);
    CT_ASSERT(taken == (int)length);
}
