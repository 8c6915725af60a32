/* The text that a command trains on or measures: a data set's directory, or one text file whose
 * last tenth is held out, as bytes. */
#ifndef NODE_TEXT_SPLIT_H
#define NODE_TEXT_SPLIT_H

#include <cotrain/dataset.h>

/* Exactly one of the two is given. */
struct ct_text_source {
    const char *data_dir;
    const char *text_path;
};

/* One split's tokens and the vocabulary they are below. CT_ERR_USAGE when not exactly one source is
 * named. On success the caller ends out with ct_corpus_deinit. */
CT_MUST_CHECK enum ct_err ct_text_split_load(const struct ct_text_source *source,
                                             enum ct_split split, struct ct_corpus *out,
                                             uint32_t *out_vocab);

#endif
