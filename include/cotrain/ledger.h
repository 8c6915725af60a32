/* The ledger on disk: an append-only transparency log in the C2SP tlog-tiles layout.
 *
 * DIR/entries          the one sequential file: per entry u16 big-endian length ‖ entry
 * DIR/checkpoint       the newest signed checkpoint
 * DIR/checkpoints/N    one signed checkpoint per closed round, kept for ever (ct_ledger_keep)
 * DIR/tile/…           tiles and entry bundles, exact C2SP paths; derived from `entries`
 *
 * Order of durability (protocol.md section 7): entries synced, then tiles, then checkpoint (fsync,
 * rename, fsync of the directory). A crash at any point leaves what was published plus possibly
 * entries that nobody was told of, which opening keeps; a torn last entry is cut off.
 * One writer; all calls from one thread at a time; they block on the disk. */
#ifndef COTRAIN_LEDGER_H
#define COTRAIN_LEDGER_H

#include <cotrain/merkle.h>
#include <cotrain/note.h>

struct ct_ledger;

/* log_key may be NULL for reading only; it must outlive the ledger. create fails if one is there.
 */
CT_MUST_CHECK enum ct_err ct_ledger_create(const char *dir, const char *origin,
                                           const struct ct_key *log_key, struct ct_ledger **out);
/* Opens, repairs tiles from `entries` where the last publication did not finish, and checks that
 * the published checkpoint is a prefix: CT_ERR_DIGEST if not. */
CT_MUST_CHECK enum ct_err ct_ledger_open(const char *dir, const char *origin,
                                         const struct ct_key *log_key, struct ct_ledger **out);
void ct_ledger_close(struct ct_ledger *ledger);

/* Adds an entry in memory; durable only after ct_ledger_publish. */
CT_MUST_CHECK enum ct_err ct_ledger_append(struct ct_ledger *ledger, struct ct_bytes entry,
                                           uint64_t *out_index);
/* Makes all appended entries durable and publishes a checkpoint over them; nothing new: nothing is
 * done. After an error the ledger refuses further appends until it is reopened. */
CT_MUST_CHECK enum ct_err ct_ledger_publish(struct ct_ledger *ledger);
/* Keeps the newest published checkpoint as DIR/checkpoints/<size>. */
CT_MUST_CHECK enum ct_err ct_ledger_keep(struct ct_ledger *ledger);

uint64_t ct_ledger_size(const struct ct_ledger *ledger);      /* appended */
uint64_t ct_ledger_published(const struct ct_ledger *ledger); /* covered by the checkpoint */
/* The newest published note; valid until the next publish. */
struct ct_bytes ct_ledger_checkpoint(const struct ct_ledger *ledger);
CT_MUST_CHECK enum ct_err ct_ledger_read(struct ct_ledger *ledger, uint64_t index,
                                         struct ct_buf *out);
/* Inclusion proof of a published entry under the newest checkpoint. */
CT_MUST_CHECK enum ct_err ct_ledger_prove(struct ct_ledger *ledger, uint64_t index,
                                          struct ct_proof *out);

/* Paths below DIR, as tlog-tiles wants them: "tile/0/x001/x234/067", "tile/entries/000.p/5".
 * level −1 means entries; width 256 means a full tile. */
#define CT_TILE_PATH_MAX 96
#define CT_TILE_WIDTH    256u
void ct_tile_path(int level, uint64_t index, uint32_t width, char out[CT_TILE_PATH_MAX]);

/* Splits an entry bundle from a stranger: calls back for each of exactly `count` entries. */
typedef enum ct_err (*ct_bundle_entry)(void *user, struct ct_bytes entry);
CT_MUST_CHECK enum ct_err ct_bundle_parse(struct ct_bytes bundle, uint32_t count,
                                          ct_bundle_entry each, void *user);

#endif
