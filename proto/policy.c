#include <cotrain/policy.h>

#include <cotrain/assert.h>

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define WORDS_MAX (CT_POLICY_MEMBERS_MAX + 3u)

/* One line, cut into words by spaces and tabs. */
struct line {
    unsigned number;
    uint32_t count;
    struct ct_bytes words[WORDS_MAX];
};

static enum ct_err fail_at(const struct line *line, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static enum ct_err fail_at(const struct line *line, const char *format, ...) {
    char text[300];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return ct_fail(CT_ERR_FORMAT, "policy, line %u: %s", line->number, text);
}

static bool is(struct ct_bytes word, const char *text) {
    return word.length == strlen(text) && memcmp(word.data, text, word.length) == 0;
}

static enum ct_err copy_word(const struct line *line, uint32_t index, size_t capacity, char *out) {
    struct ct_bytes word = line->words[index];
    if (word.length >= capacity) {
        return fail_at(line, "'%.40s…' has %zu bytes, at most %zu are read",
                       (const char *)word.data, word.length, capacity - 1);
    }
    memcpy(out, word.data, word.length);
    out[word.length] = '\0';
    return CT_OK;
}

static enum ct_err split(struct ct_bytes bytes, struct line *out) {
    out->count = 0;
    for (size_t at = 0; at < bytes.length;) {
        uint8_t c = bytes.data[at];
        if (c == ' ' || c == '\t') {
            at++;
            continue;
        }
        if (c == '#' && out->count == 0) {
            return CT_OK;
        }
        size_t start = at;
        while (at < bytes.length && bytes.data[at] != ' ' && bytes.data[at] != '\t') {
            at++;
        }
        if (out->count == WORDS_MAX) {
            return fail_at(out, "more than %u words", WORDS_MAX);
        }
        out->words[out->count++] = (struct ct_bytes){bytes.data + start, at - start};
    }
    return CT_OK;
}

/* Index of the member with that name; member_count if there is none. */
static uint32_t find_member(const struct ct_policy *policy, struct ct_bytes name) {
    uint32_t i = 0;
    while (i < policy->member_count && !is(name, policy->members[i].name)) {
        i++;
    }
    return i;
}

static enum ct_err read_log(const struct line *line, struct ct_policy *policy) {
    char vkey[CT_VKEY_BYTES_MAX];
    if (line->count < 2 || line->count > 3) {
        return fail_at(line, "a log is 'log VKEY [URL]'");
    }
    if (policy->log_count == CT_POLICY_LOGS_MAX) {
        return fail_at(line, "more than %u logs", CT_POLICY_LOGS_MAX);
    }
    struct ct_policy_log *log = &policy->logs[policy->log_count];
    CT_TRY(copy_word(line, 1, sizeof vkey, vkey));
    if (ct_vkey_parse(vkey, log->origin, &log->key) != CT_OK) {
        return fail_at(line, "%s", ct_err_detail());
    }
    if (line->count == 3) {
        CT_TRY(copy_word(line, 2, sizeof log->url, log->url));
    }
    for (uint32_t i = 0; i < policy->log_count; i++) {
        if (ct_hash_equal(&policy->logs[i].key, &log->key)) {
            return fail_at(line, "this log's key is there already");
        }
    }
    policy->log_count++;
    return CT_OK;
}

/* A new member with the name in word 1, not counted yet. */
static enum ct_err begin_member(const struct line *line, struct ct_policy *policy,
                                struct ct_policy_member **out) {
    if (policy->member_count == CT_POLICY_MEMBERS_MAX) {
        return fail_at(line, "more than %u witnesses and groups", CT_POLICY_MEMBERS_MAX);
    }
    struct ct_policy_member *member = &policy->members[policy->member_count];
    CT_TRY(copy_word(line, 1, sizeof member->name, member->name));
    if (is(line->words[1], "none") || find_member(policy, line->words[1]) != policy->member_count) {
        return fail_at(line, "the name '%s' is taken", member->name);
    }
    *out = member;
    return CT_OK;
}

static enum ct_err read_witness(const struct line *line, struct ct_policy *policy) {
    char vkey[CT_VKEY_BYTES_MAX];
    struct ct_policy_member *member = NULL;
    if (line->count < 3 || line->count > 4) {
        return fail_at(line, "a witness is 'witness NAME VKEY [URL]'");
    }
    CT_TRY(begin_member(line, policy, &member));
    CT_TRY(copy_word(line, 2, sizeof vkey, vkey));
    if (ct_cosigner_parse(vkey, member->key_name, &member->key) != CT_OK) {
        return fail_at(line, "%s", ct_err_detail());
    }
    if (line->count == 4) {
        CT_TRY(copy_word(line, 3, sizeof member->url, member->url));
    }
    for (uint32_t i = 0; i < policy->member_count; i++) {
        const struct ct_policy_member *other = &policy->members[i];
        if (!other->is_group && ct_hash_equal(&other->key, &member->key)) {
            return fail_at(line, "the key of '%s' is that of '%s'", member->name, other->name);
        }
    }
    policy->member_count++;
    return CT_OK;
}

/* all, any, or a decimal from 1 to the number of members. */
static bool read_threshold(struct ct_bytes word, uint32_t members, uint32_t *out) {
    if (is(word, "all") || is(word, "any")) {
        *out = is(word, "all") ? members : 1;
        return true;
    }
    uint32_t value = 0;
    for (size_t i = 0; i < word.length && i < 3; i++) {
        if (word.data[i] < '0' || word.data[i] > '9') {
            return false;
        }
        value = value * 10 + (uint32_t)(word.data[i] - '0');
    }
    *out = value;
    return word.length > 0 && word.length <= 2 && word.data[0] != '0' && value <= members;
}

static enum ct_err read_group(const struct line *line, struct ct_policy *policy) {
    struct ct_policy_member *group = NULL;
    if (line->count < 4) {
        return fail_at(line, "a group is 'group NAME all|any|K NAME…'");
    }
    CT_TRY(begin_member(line, policy, &group));
    group->is_group = true;
    if (!read_threshold(line->words[2], line->count - 3, &group->threshold)) {
        return fail_at(line, "a threshold is all, any, or a number from 1 to the %u members",
                       line->count - 3);
    }
    for (uint32_t i = 3; i < line->count; i++) {
        uint32_t index = find_member(policy, line->words[i]);
        if (index == policy->member_count || policy->members[index].used) {
            return fail_at(
                line, "'%.*s' is %s", (int)line->words[i].length, (const char *)line->words[i].data,
                index == policy->member_count ? "not defined above" : "in a group already");
        }
        policy->members[index].used = true;
        group->members |= 1ull << index;
    }
    policy->member_count++;
    return CT_OK;
}

static enum ct_err read_quorum(const struct line *line, struct ct_policy *policy, bool *seen) {
    if (line->count != 2 || *seen) {
        return fail_at(line, *seen ? "a second quorum"
                                   : "a quorum is 'quorum NAME' or "
                                     "'quorum none'");
    }
    *seen = true;
    policy->quorum = UINT32_MAX;
    if (is(line->words[1], "none")) {
        return CT_OK;
    }
    policy->quorum = find_member(policy, line->words[1]);
    return policy->quorum < policy->member_count
               ? CT_OK
               : fail_at(line, "'%.*s' is not defined above", (int)line->words[1].length,
                         (const char *)line->words[1].data);
}

static enum ct_err read_line(const struct line *line, struct ct_policy *policy, bool *seen) {
    if (line->count == 0) {
        return CT_OK;
    }
    if (is(line->words[0], "log")) {
        return read_log(line, policy);
    }
    if (is(line->words[0], "witness")) {
        return read_witness(line, policy);
    }
    if (is(line->words[0], "group")) {
        return read_group(line, policy);
    }
    if (is(line->words[0], "quorum")) {
        return read_quorum(line, policy, seen);
    }
    return fail_at(line, "it begins with none of log, witness, group, quorum");
}

enum ct_err ct_policy_parse(struct ct_bytes text, struct ct_policy *out) {
    memset(out, 0, sizeof *out);
    if (text.length > CT_POLICY_BYTES_MAX) {
        return ct_fail(CT_ERR_TOO_LARGE, "policy: longer than %u bytes", CT_POLICY_BYTES_MAX);
    }
    struct line line = {.number = 0};
    bool seen = false;
    for (size_t at = 0; at < text.length;) {
        const uint8_t *start = text.data + at;
        const uint8_t *end = memchr(start, '\n', text.length - at);
        line.number++;
        if (end == NULL) {
            return fail_at(&line, "it does not end in a line feed");
        }
        size_t length = (size_t)(end - start);
        for (size_t i = 0; i < length; i++) {
            if ((start[i] < 0x20 && start[i] != '\t') || start[i] == 0x7f) {
                return fail_at(&line, "a control character");
            }
        }
        CT_TRY(split((struct ct_bytes){start, length}, &line));
        CT_TRY(read_line(&line, out, &seen));
        at += length + 1;
    }
    if (!seen) {
        return ct_fail(CT_ERR_FORMAT, "policy: no quorum line ('quorum none' asks for no witness)");
    }
    if (out->quorum == UINT32_MAX) {
        out->quorum = out->member_count;
    }
    return CT_OK;
}

/* Members refer to earlier ones alone, so one pass settles all groups. */
static uint64_t settle(const struct ct_policy *policy, uint64_t cosigned) {
    for (uint32_t i = 0; i < policy->member_count; i++) {
        const struct ct_policy_member *member = &policy->members[i];
        if (member->is_group &&
            (uint32_t)__builtin_popcountll(member->members & cosigned) >= member->threshold) {
            cosigned |= 1ull << i;
        }
    }
    return cosigned;
}

static enum ct_err fail_missing(const struct ct_policy *policy, uint64_t cosigned) {
    char names[256] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < policy->member_count; i++) {
        const struct ct_policy_member *member = &policy->members[i];
        if (!member->is_group && (cosigned >> i & 1) == 0 && used + 1 < sizeof names) {
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s",
                                     used > 0 ? ", " : "", member->name);
            used = used < sizeof names ? used : sizeof names - 1;
        }
    }
    return ct_fail(CT_ERR_SIGNATURE,
                   "checkpoint: %u of %u witnesses cosigned it, which is not the quorum '%s'; "
                   "missing: %s",
                   (unsigned)__builtin_popcountll(cosigned), ct_policy_witnesses(policy),
                   policy->members[policy->quorum].name, names);
}

enum ct_err ct_policy_check(const struct ct_policy *policy, struct ct_bytes note,
                            uint64_t *out_cosigned) {
    uint64_t cosigned = 0;
    for (uint32_t i = 0; i < policy->member_count; i++) {
        const struct ct_policy_member *member = &policy->members[i];
        if (member->is_group) {
            continue;
        }
        enum ct_err err = ct_cosignature_check(note, member->key_name, &member->key, NULL);
        if (err != CT_OK && err != CT_ERR_NOT_FOUND) {
            return err;
        }
        cosigned |= (uint64_t)(err == CT_OK) << i;
    }
    if (out_cosigned != NULL) {
        *out_cosigned = cosigned;
    }
    if (policy->quorum == policy->member_count ||
        (settle(policy, cosigned) >> policy->quorum & 1) != 0) {
        return CT_OK;
    }
    return fail_missing(policy, cosigned);
}

const struct ct_policy_log *ct_policy_find_log(const struct ct_policy *policy, const char *origin) {
    for (uint32_t i = 0; i < policy->log_count; i++) {
        if (strcmp(policy->logs[i].origin, origin) == 0) {
            return &policy->logs[i];
        }
    }
    return NULL;
}

uint32_t ct_policy_witnesses(const struct ct_policy *policy) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < policy->member_count; i++) {
        count += !policy->members[i].is_group;
    }
    return count;
}

uint32_t ct_policy_least(const struct ct_policy *policy) {
    uint32_t least[CT_POLICY_MEMBERS_MAX] = {0};
    if (policy->quorum == policy->member_count) {
        return 0;
    }
    for (uint32_t i = 0; i < policy->member_count; i++) {
        const struct ct_policy_member *member = &policy->members[i];
        least[i] = member->is_group ? 0 : 1;
        uint64_t left = member->members;
        for (uint32_t taken = 0; taken < member->threshold; taken++) {
            uint32_t best = CT_POLICY_MEMBERS_MAX;
            for (uint32_t j = 0; j < i; j++) {
                if ((left >> j & 1) != 0 &&
                    (best == CT_POLICY_MEMBERS_MAX || least[j] < least[best])) {
                    best = j;
                }
            }
            CT_ASSERT(best < CT_POLICY_MEMBERS_MAX);
            least[i] += least[best];
            left &= ~(1ull << best);
        }
    }
    return least[policy->quorum];
}
