#include "roster.h"

#include <cotrain/assert.h>

#include <stdlib.h>
#include <string.h>

enum ct_err ct_roster_init(struct ct_roster *roster, const struct ct_manifest *manifest) {
    *roster = (struct ct_roster){.seat_count = manifest->node_count};
    roster->seats = calloc(manifest->node_count + 1u, sizeof roster->seats[0]);
    if (roster->seats == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory for %u nodes", manifest->node_count);
    }
    for (uint32_t i = 0; i < manifest->node_count; i++) {
        roster->seats[i].key = manifest->nodes[i];
    }
    return CT_OK;
}

static void contribution_deinit(struct ct_contribution *contribution) {
    ct_buf_deinit(&contribution->envelope);
    ct_buf_deinit(&contribution->entry);
    *contribution = (struct ct_contribution){0};
}

void ct_roster_deinit(struct ct_roster *roster) {
    while (roster->members != NULL) {
        ct_roster_remove(roster, roster->members);
    }
    for (uint32_t i = 0; i < roster->seat_count; i++) {
        contribution_deinit(&roster->seats[i].contributions[0]);
        contribution_deinit(&roster->seats[i].contributions[1]);
    }
    free(roster->seats);
    *roster = (struct ct_roster){0};
}

struct ct_member *ct_roster_add(struct ct_roster *roster, struct ct_link *link, uint64_t now_ms) {
    struct ct_member *member = calloc(1, sizeof *member);
    if (member == NULL) {
        return NULL;
    }
    member->link = link;
    member->opened_ms = member->heard_ms = member->pinged_ms = now_ms;
    member->next = roster->members;
    if (member->next != NULL) {
        member->next->previous = member;
    }
    roster->members = member;
    roster->member_count++;
    return member;
}

void ct_roster_remove(struct ct_roster *roster, struct ct_member *member) {
    ct_roster_unseat(member);
    if (member->previous != NULL) {
        member->previous->next = member->next;
    } else {
        roster->members = member->next;
    }
    if (member->next != NULL) {
        member->next->previous = member->previous;
    }
    roster->member_count--;
    free(member);
}

struct ct_seat *ct_roster_seat(struct ct_roster *roster, const struct ct_hash *key) {
    for (uint32_t i = 0; i < roster->seat_count; i++) {
        if (ct_hash_equal(&roster->seats[i].key, key)) {
            return &roster->seats[i];
        }
    }
    return NULL;
}

void ct_roster_unseat(struct ct_member *member) {
    if (member->seat != NULL) {
        CT_ASSERT(member->seat->member == member);
        member->seat->member = NULL;
        member->seat = NULL;
    }
    member->ready = false;
}

uint32_t ct_roster_welcome(struct ct_roster *roster, struct ct_member *member,
                           const struct ct_wire *hello, const struct ct_hash *run_id,
                           uint64_t now_ms, struct ct_member **out_replaced) {
    CT_ASSERT(hello->kind == CT_WIRE_HELLO && member->opened && member->seat == NULL);
    *out_replaced = NULL;
    if (hello->body.hello.protocol != CT_PROTOCOL_VERSION) {
        return CT_REFUSED_VERSION;
    }
    if (!ct_hash_equal(&hello->body.hello.run_id, run_id)) {
        return CT_REFUSED_RUN;
    }
    struct ct_seat *seat = ct_roster_seat(roster, &member->key);
    if (seat == NULL) {
        return CT_REFUSED_NOT_LISTED;
    }
    struct ct_member *other = seat->member;
    if (other != NULL) {
        bool same = memcmp(other->instance, hello->body.hello.instance, CT_INSTANCE_BYTES) == 0;
        if (!same && now_ms - other->heard_ms < CT_MEMBER_DEAD_MS) {
            return CT_REFUSED_INSTANCE;
        }
        ct_roster_unseat(other);
        *out_replaced = other;
    }
    memcpy(member->instance, hello->body.hello.instance, CT_INSTANCE_BYTES);
    member->state = hello->body.hello.state;
    member->seat = seat;
    seat->member = member;
    seat->left = false;
    return 0;
}

enum ct_member_need ct_roster_need(const struct ct_member *member, uint64_t now_ms) {
    if (member->closing || !member->opened) {
        return CT_MEMBER_FINE; /* the link has times of its own */
    }
    if (member->seat == NULL) {
        return now_ms - member->opened_ms >= CT_MEMBER_GREET_MS ? CT_MEMBER_DEAD : CT_MEMBER_FINE;
    }
    if (now_ms - member->heard_ms >= CT_MEMBER_DEAD_MS) {
        return CT_MEMBER_DEAD;
    }
    return now_ms - member->heard_ms >= CT_MEMBER_PING_MS &&
                   now_ms - member->pinged_ms >= CT_MEMBER_PING_MS
               ? CT_MEMBER_PING
               : CT_MEMBER_FINE;
}

struct ct_contribution *ct_seat_find(struct ct_seat *seat, uint32_t round) {
    struct ct_contribution *contribution = &seat->contributions[round & 1];
    return round != 0 && contribution->round == round ? contribution : NULL;
}

enum ct_err ct_seat_commit(struct ct_seat *seat, uint64_t index, const struct ct_commit *commit,
                           struct ct_bytes envelope, struct ct_bytes entry) {
    struct ct_contribution *contribution = &seat->contributions[commit->round & 1];
    contribution_deinit(contribution);
    ct_buf_init(&contribution->envelope, CT_STATEMENT_BYTES_MAX);
    ct_buf_init(&contribution->entry, CT_ENTRY_BYTES_MAX);
    enum ct_err err = ct_buf_append(&contribution->envelope, envelope.data, envelope.length);
    if (err == CT_OK) {
        err = ct_buf_append(&contribution->entry, entry.data, entry.length);
    }
    if (err != CT_OK) {
        contribution_deinit(contribution);
        return err;
    }
    contribution->round = commit->round;
    contribution->node = commit->author;
    contribution->index = index;
    contribution->commit = *commit;
    return CT_OK;
}

uint32_t ct_roster_ready(const struct ct_roster *roster) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < roster->seat_count; i++) {
        const struct ct_member *member = roster->seats[i].member;
        count += member != NULL && member->ready;
    }
    return count;
}
