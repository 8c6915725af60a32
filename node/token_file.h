/* Token ids that a person hands over: a file, or a list on the command line. */
#ifndef NODE_TOKEN_FILE_H
#define NODE_TOKEN_FILE_H

#include <cotrain/err.h>
#include <cotrain/types.h>

/* Where `text` names a file, its little-endian ids: 2 bytes each for a vocabulary of at most 65,536
 * tokens, else 4. Otherwise `text` is the ids themselves, decimal, with commas between.
 * CT_ERR_FORMAT for anything else and for an id that is not below vocab. On success the caller
 * frees *out; on failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_tokens_read(const char *text, uint32_t vocab, uint32_t **out,
                                         size_t *out_count);

#endif
