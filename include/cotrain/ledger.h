/* The ledger on disk: an append-only transparency log in the C2SP tlog-tiles layout.
 *
 * DIR/entries          the one sequential file: per entry u16 big-endian length ‖ entry
 * DIR/checkpoint       the newest signed checkpoint, with what cosignatures of witnesses arrived
 * DIR/witnessed        the newest one with a quorum of them; not there before the first
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

/* Makes an empty ledger with a checkpoint of size 0, and opens it. CT_ERR_EXISTS if one is there.
 * log_key must outlive the ledger. */
CT_MUST_CHECK enum ct_err ct_ledger_create(const char *dir, const char *origin,
                                           const struct ct_key *log_key, struct ct_ledger **out);
/* Opens: holds the end of the log to the newest checkpoint, checks that the newest kept one is a
 * prefix and no newer (CT_ERR_DIGEST), cuts off a torn last entry, and writes tiles again that are
 * missing, or damaged at the log's end. Entries that no checkpoint covers stay; the next
 * publication covers them. Reads what that takes, some kilobytes; all entries only when they do not
 * fit. Memory does not grow with the log.
 *
 * log_key NULL opens what is published for reading: nothing on the disk changes, signatures and
 * kept checkpoints are not checked, and a writer may be at work meanwhile. */
CT_MUST_CHECK enum ct_err ct_ledger_open(const char *dir, const char *origin,
                                         const struct ct_key *log_key, struct ct_ledger **out);
/* The same for a copy of somebody else's log, made where there is none: its checkpoints come from
 * whoever has the log's key, through ct_ledger_accept, and ct_ledger_publish is CT_ERR_STATE.
 * Entries that no checkpoint covers are a stranger's word until then. */
CT_MUST_CHECK enum ct_err ct_ledger_open_copy(const char *dir, const char *origin,
                                              const struct ct_hash *public_key,
                                              struct ct_ledger **out);
void ct_ledger_close(struct ct_ledger *ledger);

/* Holds everything to the published entries, which give the checkpoint's root or are CT_ERR_DIGEST:
 * kept checkpoints, and all tiles, which are written again where they are wrong. Reads all of it.
 */
CT_MUST_CHECK enum ct_err ct_ledger_check(struct ct_ledger *ledger);

/* Adds an entry of 1 to CT_ENTRY_BYTES_MAX bytes in memory; durable only after ct_ledger_publish.
 * CT_ERR_TOO_LARGE also when 256 MiB wait for publication. */
CT_MUST_CHECK enum ct_err ct_ledger_append(struct ct_ledger *ledger, struct ct_bytes entry,
                                           uint64_t *out_index);
/* Makes all appended entries durable and publishes a checkpoint over them; nothing new: nothing is
 * done. CT_ERR_FULL: nothing new is published, and it may be called again when there is room. After
 * any other error the ledger refuses further appends until it is reopened. */
CT_MUST_CHECK enum ct_err ct_ledger_publish(struct ct_ledger *ledger);
/* Makes appended entries durable without publishing them: they wait on the disk, not in memory. */
CT_MUST_CHECK enum ct_err ct_ledger_store(struct ct_ledger *ledger);
/* Publishes all appended entries under a note that the log's key signed, for a copy.
 * CT_ERR_SIGNATURE, CT_ERR_FORMAT: no note of this log. CT_ERR_RULE: it is over another number of
 * entries, or nothing new. CT_ERR_DIGEST: these entries do not give its root. After those nothing
 * has changed; others as ct_ledger_publish. */
CT_MUST_CHECK enum ct_err ct_ledger_accept(struct ct_ledger *ledger, struct ct_bytes note);
/* Keeps the newest published checkpoint as DIR/checkpoints/<size>; again is harmless. */
CT_MUST_CHECK enum ct_err ct_ledger_keep(struct ct_ledger *ledger);
/* Keeps a checkpoint of at most the published size; errors as ct_ledger_accept. */
CT_MUST_CHECK enum ct_err ct_ledger_keep_note(struct ct_ledger *ledger, struct ct_bytes note);
/* Whether one of that size is kept. */
bool ct_ledger_has_kept(const struct ct_ledger *ledger, uint64_t size);
/* Puts a cosigned form of a published checkpoint in the place of the plain one: the newest, and the
 * kept one of that size; with `witnessed`, also as DIR/witnessed. CT_ERR_RULE: no checkpoint of
 * this ledger. A failure changes nothing that was published. */
CT_MUST_CHECK enum ct_err ct_ledger_cosign(struct ct_ledger *ledger, struct ct_bytes note,
                                           bool witnessed);
/* Drops the entries from `size` on; none of them may be published (CT_ERR_RULE). For a writer that
 * finds, on opening, that a crash left bytes that are no entry of its own. */
CT_MUST_CHECK enum ct_err ct_ledger_cut(struct ct_ledger *ledger, uint64_t size);

uint64_t ct_ledger_size(const struct ct_ledger *ledger);      /* appended */
uint64_t ct_ledger_published(const struct ct_ledger *ledger); /* covered by the checkpoint */
/* The newest published note; valid until the next publish. */
struct ct_bytes ct_ledger_checkpoint(const struct ct_ledger *ledger);
/* Replaces the content of `out` (initialised) by an appended entry, published or not. What is read
 * is what the checkpoint's root covers: CT_ERR_DIGEST when the disk holds something else. */
CT_MUST_CHECK enum ct_err ct_ledger_read(struct ct_ledger *ledger, uint64_t index,
                                         struct ct_buf *out);
/* The root of the first `size` entries, at most those appended; older ones are read from tiles. */
CT_MUST_CHECK enum ct_err ct_ledger_root(struct ct_ledger *ledger, uint64_t size,
                                         struct ct_hash *out);
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
