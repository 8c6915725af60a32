#include "ref_sort.h"

#include "temporary.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PART_REFS   65536u /* sorted in memory at a time */
#define WINDOW_REFS 64u    /* of each part, read at a time while merging */

/* A sorted part in the file, and what of it has been read. */
struct part {
    uint64_t at, end; /* positions in the file, counted in references */
    uint32_t read, held;
    struct ct_named_ref window[WINDOW_REFS];
};

struct ct_ref_sort {
    int fd;
    uint64_t written;          /* references in the file */
    struct ct_named_ref *refs; /* [PART_REFS], the part that is being filled */
    uint32_t count;
    bool merging, any;
    struct ct_hash last; /* digest that was given out, if any was */
    uint32_t part_count;
    struct part *parts;
};

static int compare(const void *left, const void *right) {
    const struct ct_named_ref *a = left;
    const struct ct_named_ref *b = right;
    const int order = memcmp(&a->ref.sha256, &b->ref.sha256, sizeof a->ref.sha256);
    if (order != 0 || a->may_be_gone != b->may_be_gone) {
        return order != 0 ? order : a->may_be_gone - b->may_be_gone;
    }
    return (a->entry > b->entry) - (a->entry < b->entry);
}

enum ct_err ct_ref_sort_open(struct ct_ref_sort **out) {
    struct ct_ref_sort *sort = calloc(1, sizeof *sort);
    if (sort == NULL || (sort->refs = malloc(PART_REFS * sizeof *sort->refs)) == NULL) {
        free(sort);
        return ct_fail(CT_ERR_MEMORY, "no memory to sort references");
    }
    const enum ct_err err = ct_temporary_file(&sort->fd);
    if (err != CT_OK) {
        sort->fd = -1;
        ct_ref_sort_close(sort);
        return err;
    }
    *out = sort;
    return CT_OK;
}

void ct_ref_sort_close(struct ct_ref_sort *sort) {
    if (sort == NULL) {
        return;
    }
    if (sort->fd >= 0) {
        close(sort->fd);
    }
    free(sort->refs);
    free(sort->parts);
    free(sort);
}

/* Puts the filled part into the file. */
static enum ct_err spill(struct ct_ref_sort *sort) {
    if (sort->count == 0) {
        return CT_OK;
    }
    qsort(sort->refs, sort->count, sizeof *sort->refs, compare);
    const size_t bytes = sort->count * sizeof *sort->refs;
    CT_TRY(ct_temporary_write(sort->fd, sort->refs, bytes, sort->written * sizeof *sort->refs));
    struct part *grown = realloc(sort->parts, (sort->part_count + 1) * sizeof *grown);
    if (grown == NULL) {
        return ct_fail(CT_ERR_MEMORY, "no memory to sort references");
    }
    sort->parts = grown;
    struct part *part = &grown[sort->part_count++];
    memset(part, 0, sizeof *part);
    part->at = sort->written;
    sort->written += sort->count;
    part->end = sort->written;
    sort->count = 0;
    return CT_OK;
}

enum ct_err ct_ref_sort_add(struct ct_ref_sort *sort, const struct ct_blob_ref *ref, uint64_t entry,
                            bool may_be_gone) {
    if (sort->count == PART_REFS) {
        CT_TRY(spill(sort));
    }
    /* Zeroed first: what lies between the members goes into the file too. */
    struct ct_named_ref *item = &sort->refs[sort->count++];
    memset(item, 0, sizeof *item);
    item->ref = *ref;
    item->entry = entry;
    item->may_be_gone = may_be_gone;
    return CT_OK;
}

/* The part's foremost reference, or NULL. */
static enum ct_err front(struct ct_ref_sort *sort, struct part *part,
                         const struct ct_named_ref **out) {
    if (part->read == part->held) {
        const uint64_t left = part->end - part->at;
        part->held = left < WINDOW_REFS ? (uint32_t)left : WINDOW_REFS;
        part->read = 0;
        CT_TRY(ct_temporary_read(sort->fd, part->window, part->held * sizeof part->window[0],
                                 part->at * sizeof part->window[0]));
        part->at += part->held;
    }
    *out = part->held == 0 ? NULL : &part->window[part->read];
    return CT_OK;
}

static enum ct_err take_least(struct ct_ref_sort *sort, struct ct_named_ref *out) {
    struct part *least = NULL;
    for (uint32_t i = 0; i < sort->part_count; i++) {
        const struct ct_named_ref *candidate = NULL;
        CT_TRY(front(sort, &sort->parts[i], &candidate));
        if (candidate != NULL && (least == NULL || compare(candidate, out) < 0)) {
            least = &sort->parts[i];
            *out = *candidate;
        }
    }
    if (least == NULL) {
        return CT_ERR_NOT_FOUND;
    }
    least->read++;
    return CT_OK;
}

enum ct_err ct_ref_sort_next(struct ct_ref_sort *sort, struct ct_named_ref *out) {
    if (!sort->merging) {
        CT_TRY(spill(sort));
        sort->merging = true;
    }
    do {
        CT_TRY(take_least(sort, out));
    } while (sort->any && memcmp(&sort->last, &out->ref.sha256, sizeof sort->last) == 0);
    sort->any = true;
    sort->last = out->ref.sha256;
    return CT_OK;
}
