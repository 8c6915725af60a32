/* A node's training state of its epoch, kept over restarts: two slots, written in turn, so that a
 * crash while one is written leaves the other.
 *
 * DIR/slot-0, DIR/slot-1: "CTST" ‖ u32 version 1 ‖ u32 round ‖ u32 step ‖ state digest[32] ‖
 * u64 parameters ‖ θ_local ‖ m ‖ v ‖ e, all little-endian binary32. The digest is SL1's state
 * digest over just these values, so a slot is proven by what the ledger says of it. */
#ifndef NODE_TRAIN_SLOT_H
#define NODE_TRAIN_SLOT_H

#include <cotrain/crypto.h>
#include <cotrain/optimizer.h>

struct ct_train_slot {
    uint32_t round; /* 0: the slot is empty or unreadable */
    uint32_t step;
    struct ct_hash state;
};

/* The slots' headers, unverified: enough to tell which states might be here. */
void ct_train_slots_peek(const char *dir, struct ct_train_slot out[2]);

/* Writes the state after `round` into the older slot. Durable on return. */
CT_MUST_CHECK enum ct_err ct_train_slots_save(const char *dir, const struct ct_layout *layout,
                                              uint32_t round, const struct ct_hash *digest,
                                              const struct ct_train_state *state);

/* Loads the state of that digest into state's arrays, and verifies it; CT_ERR_NOT_FOUND when no
 * slot has it, CT_ERR_DIGEST when its values are damaged (the arrays are then undefined). */
CT_MUST_CHECK enum ct_err ct_train_slots_load(const char *dir, const struct ct_layout *layout,
                                              const struct ct_hash *digest,
                                              struct ct_train_state *state);

#endif
