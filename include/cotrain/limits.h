/* Every maximum that a peer's or a file's length is held to before anything is reserved. */
#ifndef COTRAIN_LIMITS_H
#define COTRAIN_LIMITS_H

/* ledger */
#define CT_ENTRY_BYTES_MAX      65535u /* tlog-tiles: u16 length before each entry */
#define CT_STATEMENT_BYTES_MAX  4096u  /* a node's signed statement with its envelope */
#define CT_ORIGIN_BYTES_MAX     128u
#define CT_CHECKPOINT_BYTES_MAX 8192u /* signed note with up to 16 signatures and room */
#define CT_HELLO_NOTE_MAX       1024u /* a checkpoint with its log's signature alone */
#define CT_PROFILE_BYTES_MAX    512u  /* a volunteer's signed record */
#define CT_PROOF_HASHES_MAX     63u

/* wire, protocol.md section 9 */
#define CT_FRAME_BYTES_MAX_EARLY  4096u    /* before welcome */
#define CT_FRAME_BYTES_MAX        65536u   /* after welcome */
#define CT_FRAME_BYTES_MAX_UPLOAD 1114112u /* one upload chunk of 1 MiB and its fields */
#define CT_UPLOAD_CHUNK_BYTES     1048576u

/* run */
#define CT_NODES_MAX             1024u
#define CT_STEPS_MAX             64u    /* inner steps of an assignment: numerics.md, SL1 */
#define CT_RATE_ENTRIES_MAX      65536u /* learning-rate table */
#define CT_MANIFEST_BYTES_MAX    1048576u
#define CT_ASSIGNMENTS_BYTES_MAX 1048576u
#define CT_MERGE_LIST_BYTES_MAX  1048576u
#define CT_BLOB_BYTES_MAX        (64ull << 30)
#define CT_BLOB_IN_MEMORY_MAX    (4ull << 30)

/* model */
#define CT_TENSOR_NAME_MAX 64u
#define CT_WIDTH_MAX       65536u
#define CT_VOCAB_MAX       1048576u
#define CT_CONTEXT_MAX     65536u
#define CT_LAYERS_MAX      512u
#define CT_HIDDEN_MAX      262144u
#define CT_PARAMETERS_MAX  (8ull << 30)

#define CT_NORM_EPSILON_MIN 1e-12f
#define CT_NORM_EPSILON_MAX 1e-2f
#define CT_ROPE_THETA_MIN   1.0f
#define CT_ROPE_THETA_MAX   1e9f

/* SL1 */
#define CT_CHUNK_VALUES       4096u
#define CT_CHUNK_SELECTED_MAX 64u /* k of a full chunk */

#endif
