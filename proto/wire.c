#include "message.h"

#include <cotrain/fold.h>
#include <cotrain/wire.h>

#include <math.h>
#include <string.h>

#include <cotrain.pb-c.h>

#define MIRRORS_MAX (sizeof((struct ct_wire *)0)->body.welcome.mirrors / 256)

/* Fields whose bytes a decoded message points to. */
enum {
    FIELD_RUN_ENTRY = 1,
    FIELD_NOTICE_CHECKPOINT = 1,
    FIELD_RECEIPT_TEXT = 2,
    FIELD_COMMIT_ENVELOPE = 1,
    FIELD_UPLOAD_DATA = 3,
    FIELD_HELLO_CHECKPOINT = 7,
    FIELD_HELLO_PROFILE = 8,
};

/* What holds of numbers and lengths in both directions; texts are checked where they are read. */
static enum ct_err check(const struct ct_wire *wire) {
    bool good = true;
    switch (wire->kind) {
    case CT_WIRE_RUN:
        good = wire->body.run.entry.length > 0 && wire->body.run.entry.length <= CT_ENTRY_BYTES_MAX;
        break;
    case CT_WIRE_WELCOME:
        good = wire->body.welcome.http_port <= UINT16_MAX &&
               wire->body.welcome.mirror_count <= MIRRORS_MAX;
        break;
    case CT_WIRE_NOTICE:
        good = wire->body.notice.checkpoint.length <= CT_CHECKPOINT_BYTES_MAX &&
               wire->body.notice.phase <= CT_PHASE_FINISHED;
        break;
    case CT_WIRE_RECEIPT:
        good = wire->body.receipt.round > 0 && wire->body.receipt.text.length > 0;
        break;
    case CT_WIRE_UPLOADED:
        good = wire->body.uploaded.round > 0 && wire->body.uploaded.offset <= CT_BLOB_BYTES_MAX;
        break;
    case CT_WIRE_REFUSAL:
        good = wire->body.refusal.code >= CT_REFUSED_VERSION &&
               wire->body.refusal.code <= CT_REFUSED_BUSY;
        break;
    case CT_WIRE_READY:
        good = isfinite(wire->body.ready.tokens_per_s) && !signbit(wire->body.ready.tokens_per_s);
        break;
    case CT_WIRE_COMMIT:
        good = wire->body.commit.envelope.length > 0 &&
               wire->body.commit.envelope.length <= CT_STATEMENT_BYTES_MAX;
        break;
    case CT_WIRE_UPLOAD:
        good = wire->body.upload.round > 0 && wire->body.upload.offset <= CT_BLOB_BYTES_MAX &&
               wire->body.upload.data.length <= CT_UPLOAD_CHUNK_BYTES;
        break;
    case CT_WIRE_HELLO:
        good = wire->body.hello.checkpoint.length <= CT_HELLO_NOTE_MAX &&
               wire->body.hello.profile.length <= CT_PROFILE_BYTES_MAX;
        break;
    case CT_WIRE_LEAVE:
    case CT_WIRE_PING:
    case CT_WIRE_PONG:
        break;
    default:
        return ct_fail(CT_ERR_FORMAT, "message kind %u is not known here", (unsigned)wire->kind);
    }
    if (!good) {
        return ct_fail(CT_ERR_FORMAT, "a message of kind %u has a number or length out of range",
                       (unsigned)wire->kind);
    }
    return CT_OK;
}

/* All that a frame's message points to while it is packed. */
struct parts {
    Cotrain__Wire wire;
    union {
        Cotrain__Wire__Run run;
        Cotrain__Wire__Welcome welcome;
        Cotrain__Wire__Notice notice;
        Cotrain__Wire__Receipt receipt;
        Cotrain__Wire__Uploaded uploaded;
        Cotrain__Wire__Refusal refusal;
        Cotrain__Wire__Hello hello;
        Cotrain__Wire__Ready ready;
        Cotrain__Wire__Commit commit;
        Cotrain__Wire__Upload upload;
        Cotrain__Wire__Leave leave;
        Cotrain__Wire__Ping ping;
    } body;
    char texts[MIRRORS_MAX][256];
    char *mirrors[MIRRORS_MAX];
};

/* A struct's text is a char array; the same rules as for a decoded one. */
static enum ct_err put_text(const char *text, size_t capacity, const char *what, char out[256]) {
    if (strnlen(text, capacity) == capacity) {
        return ct_fail(CT_ERR_FORMAT, "%s does not end", what);
    }
    return ct_field_get_text(text, capacity, what, out);
}

static enum ct_err put_welcome(const struct ct_wire *wire, struct parts *parts) {
    Cotrain__Wire__Welcome *body = &parts->body.welcome;
    cotrain__wire__welcome__init(body);
    body->http_port = wire->body.welcome.http_port;
    body->n_mirrors = wire->body.welcome.mirror_count;
    body->mirrors = parts->mirrors;
    for (size_t i = 0; i < body->n_mirrors; i++) {
        CT_TRY(put_text(wire->body.welcome.mirrors[i], 256, "a mirror", parts->texts[i]));
        parts->mirrors[i] = parts->texts[i];
    }
    parts->wire.welcome = body;
    return CT_OK;
}

static void put_notice(const struct ct_wire *wire, struct parts *parts) {
    Cotrain__Wire__Notice *body = &parts->body.notice;
    cotrain__wire__notice__init(body);
    body->checkpoint = ct_field_put_bytes(wire->body.notice.checkpoint);
    body->round = wire->body.notice.round;
    body->phase = wire->body.notice.phase;
    body->remaining_ms = wire->body.notice.remaining_ms;
    parts->wire.notice = body;
}

static enum ct_err put_refusal(const struct ct_wire *wire, struct parts *parts) {
    Cotrain__Wire__Refusal *body = &parts->body.refusal;
    cotrain__wire__refusal__init(body);
    body->code = wire->body.refusal.code;
    body->final = wire->body.refusal.final;
    CT_TRY(put_text(wire->body.refusal.text, sizeof wire->body.refusal.text, "a refusal's text",
                    parts->texts[0]));
    body->text = parts->texts[0];
    parts->wire.refusal = body;
    return CT_OK;
}

static enum ct_err put_hello(const struct ct_wire *wire, struct parts *parts) {
    Cotrain__Wire__Hello *body = &parts->body.hello;
    cotrain__wire__hello__init(body);
    body->protocol = wire->body.hello.protocol;
    body->run_id = ct_field_put_hash(&wire->body.hello.run_id);
    body->instance =
        ct_field_put_bytes((struct ct_bytes){wire->body.hello.instance, CT_INSTANCE_BYTES});
    body->model = ct_field_put_hash_or_none(&wire->body.hello.model);
    body->state = ct_field_put_hash_or_none(&wire->body.hello.state);
    CT_TRY(put_text(wire->body.hello.software, sizeof wire->body.hello.software,
                    "a node's software", parts->texts[0]));
    body->software = parts->texts[0];
    body->checkpoint = ct_field_put_bytes(wire->body.hello.checkpoint);
    body->profile = ct_field_put_bytes(wire->body.hello.profile);
    parts->wire.hello = body;
    return CT_OK;
}

static void put_ready(const struct ct_wire *wire, struct parts *parts) {
    Cotrain__Wire__Ready *body = &parts->body.ready;
    cotrain__wire__ready__init(body);
    body->round = wire->body.ready.round;
    body->model = ct_field_put_hash(&wire->body.ready.model);
    body->state = ct_field_put_hash_or_none(&wire->body.ready.state);
    body->tokens_per_s = ct_field_put_float(wire->body.ready.tokens_per_s);
    parts->wire.ready = body;
}

static void put_transfer(const struct ct_wire *wire, struct parts *parts) {
    if (wire->kind == CT_WIRE_UPLOADED) {
        cotrain__wire__uploaded__init(&parts->body.uploaded);
        parts->body.uploaded.round = wire->body.uploaded.round;
        parts->body.uploaded.offset = wire->body.uploaded.offset;
        parts->body.uploaded.complete = wire->body.uploaded.complete;
        parts->wire.uploaded = &parts->body.uploaded;
        return;
    }
    cotrain__wire__upload__init(&parts->body.upload);
    parts->body.upload.round = wire->body.upload.round;
    parts->body.upload.offset = wire->body.upload.offset;
    parts->body.upload.data = ct_field_put_bytes(wire->body.upload.data);
    parts->wire.upload = &parts->body.upload;
}

/* The number of a kind is its field's, so the oneof's case is the kind. */
static enum ct_err put_body(const struct ct_wire *wire, struct parts *parts) {
    parts->wire.kind_case = (Cotrain__Wire__KindCase)wire->kind;
    switch (wire->kind) {
    case CT_WIRE_RUN:
        cotrain__wire__run__init(&parts->body.run);
        parts->body.run.entry = ct_field_put_bytes(wire->body.run.entry);
        parts->wire.run = &parts->body.run;
        return CT_OK;
    case CT_WIRE_WELCOME:
        return put_welcome(wire, parts);
    case CT_WIRE_NOTICE:
        put_notice(wire, parts);
        return CT_OK;
    case CT_WIRE_RECEIPT:
        cotrain__wire__receipt__init(&parts->body.receipt);
        parts->body.receipt.round = wire->body.receipt.round;
        parts->body.receipt.text = ct_field_put_bytes(wire->body.receipt.text);
        parts->wire.receipt = &parts->body.receipt;
        return CT_OK;
    case CT_WIRE_UPLOADED:
    case CT_WIRE_UPLOAD:
        put_transfer(wire, parts);
        return CT_OK;
    case CT_WIRE_REFUSAL:
        return put_refusal(wire, parts);
    case CT_WIRE_HELLO:
        return put_hello(wire, parts);
    case CT_WIRE_READY:
        put_ready(wire, parts);
        return CT_OK;
    case CT_WIRE_COMMIT:
        cotrain__wire__commit__init(&parts->body.commit);
        parts->body.commit.envelope = ct_field_put_bytes(wire->body.commit.envelope);
        parts->wire.commit = &parts->body.commit;
        return CT_OK;
    case CT_WIRE_LEAVE:
        cotrain__wire__leave__init(&parts->body.leave);
        parts->wire.leave = &parts->body.leave;
        return CT_OK;
    case CT_WIRE_PING:
    case CT_WIRE_PONG:
        cotrain__wire__ping__init(&parts->body.ping);
        parts->body.ping.token = wire->body.ping.token;
        /* ping and pong are one member of the oneof's union. */
        parts->wire.ping = &parts->body.ping;
        return CT_OK;
    }
    return ct_fail(CT_ERR_FORMAT, "message kind %u is not known here", (unsigned)wire->kind);
}

enum ct_err ct_wire_encode(const struct ct_wire *wire, struct ct_buf *out) {
    CT_TRY(check(wire));
    struct parts parts;
    cotrain__wire__init(&parts.wire);
    CT_TRY(put_body(wire, &parts));
    return ct_message_encode(&parts.wire.base, out);
}

static enum ct_err get_welcome(const Cotrain__Wire__Welcome *body, struct ct_wire *out) {
    if (body->n_mirrors > MIRRORS_MAX) {
        return ct_fail(CT_ERR_FORMAT, "a welcome names %zu mirrors", body->n_mirrors);
    }
    out->body.welcome.http_port = body->http_port;
    out->body.welcome.mirror_count = (uint32_t)body->n_mirrors;
    for (size_t i = 0; i < body->n_mirrors; i++) {
        CT_TRY(ct_field_get_text(body->mirrors[i], 256, "a mirror", out->body.welcome.mirrors[i]));
    }
    return CT_OK;
}

static enum ct_err get_hello(const Cotrain__Wire__Hello *body, struct ct_bytes inner,
                             struct ct_wire *out) {
    if (body->checkpoint.len > 0) {
        out->body.hello.checkpoint = ct_message_span(inner, FIELD_HELLO_CHECKPOINT);
    }
    if (body->profile.len > 0) {
        out->body.hello.profile = ct_message_span(inner, FIELD_HELLO_PROFILE);
    }
    out->body.hello.protocol = body->protocol;
    CT_TRY(ct_field_get_hash(&body->run_id, "a hello's run id", &out->body.hello.run_id));
    CT_TRY(ct_field_get_fixed(&body->instance, CT_INSTANCE_BYTES, "a hello's instance",
                              out->body.hello.instance));
    CT_TRY(ct_field_get_hash_or_none(&body->model, "a hello's model", &out->body.hello.model));
    CT_TRY(ct_field_get_hash_or_none(&body->state, "a hello's state", &out->body.hello.state));
    return ct_field_get_text(body->software, sizeof out->body.hello.software, "a node's software",
                             out->body.hello.software);
}

static enum ct_err get_ready(const Cotrain__Wire__Ready *body, struct ct_wire *out) {
    out->body.ready.round = body->round;
    CT_TRY(ct_field_get_hash(&body->model, "a ready node's model", &out->body.ready.model));
    CT_TRY(ct_field_get_hash_or_none(&body->state, "a ready node's state", &out->body.ready.state));
    out->body.ready.tokens_per_s = ct_field_get_float(body->tokens_per_s);
    return CT_OK;
}

/* `inner` are the bytes of the message that the oneof holds. */
static enum ct_err get_body(const Cotrain__Wire *message, struct ct_bytes inner,
                            struct ct_wire *out) {
    switch (out->kind) {
    case CT_WIRE_RUN:
        out->body.run.entry = ct_message_span(inner, FIELD_RUN_ENTRY);
        return CT_OK;
    case CT_WIRE_WELCOME:
        return get_welcome(message->welcome, out);
    case CT_WIRE_NOTICE:
        out->body.notice.checkpoint = ct_message_span(inner, FIELD_NOTICE_CHECKPOINT);
        out->body.notice.round = message->notice->round;
        out->body.notice.phase = message->notice->phase;
        out->body.notice.remaining_ms = message->notice->remaining_ms;
        return CT_OK;
    case CT_WIRE_RECEIPT:
        out->body.receipt.round = message->receipt->round;
        out->body.receipt.text = ct_message_span(inner, FIELD_RECEIPT_TEXT);
        return CT_OK;
    case CT_WIRE_UPLOADED:
        out->body.uploaded.round = message->uploaded->round;
        out->body.uploaded.offset = message->uploaded->offset;
        out->body.uploaded.complete = message->uploaded->complete != 0;
        return CT_OK;
    case CT_WIRE_REFUSAL:
        out->body.refusal.code = message->refusal->code;
        out->body.refusal.final = message->refusal->final != 0;
        return ct_field_get_text(message->refusal->text, sizeof out->body.refusal.text,
                                 "a refusal's text", out->body.refusal.text);
    case CT_WIRE_HELLO:
        return get_hello(message->hello, inner, out);
    case CT_WIRE_READY:
        return get_ready(message->ready, out);
    case CT_WIRE_COMMIT:
        out->body.commit.envelope = ct_message_span(inner, FIELD_COMMIT_ENVELOPE);
        return CT_OK;
    case CT_WIRE_UPLOAD:
        out->body.upload.round = message->upload->round;
        out->body.upload.offset = message->upload->offset;
        out->body.upload.data = ct_message_span(inner, FIELD_UPLOAD_DATA);
        return CT_OK;
    case CT_WIRE_LEAVE:
        return CT_OK;
    case CT_WIRE_PING:
        out->body.ping.token = message->ping->token;
        return CT_OK;
    case CT_WIRE_PONG:
        out->body.ping.token = message->pong->token;
        return CT_OK;
    }
    return ct_fail(CT_ERR_FORMAT, "a message has no kind");
}

static enum ct_err read_wire(const Cotrain__Wire *message, struct ct_bytes frame,
                             struct ct_wire *out) {
    memset(out, 0, sizeof *out);
    out->kind = (enum ct_wire_kind)message->kind_case;
    CT_TRY(get_body(message, ct_message_span(frame, (uint32_t)message->kind_case), out));
    return check(out);
}

enum ct_err ct_wire_decode(struct ct_bytes frame, struct ct_wire *out) {
    if (frame.length > CT_FRAME_BYTES_MAX_UPLOAD) {
        return ct_fail(CT_ERR_TOO_LARGE, "a frame of %zu bytes is over the maximum of %u",
                       frame.length, CT_FRAME_BYTES_MAX_UPLOAD);
    }
    ProtobufCMessage *message;
    CT_TRY(ct_message_decode(&cotrain__wire__descriptor, frame, &message));
    enum ct_err err = read_wire((const Cotrain__Wire *)(void *)message, frame, out);
    ct_message_free(message);
    return err;
}
