#include "text_split.h"

#include <cotrain/limits.h>

#include <stdlib.h>

enum { BYTE_VOCAB = 256 };

static enum ct_err load_text(const char *path, enum ct_split split, struct ct_corpus *out) {
    struct ct_buf text;
    ct_buf_init(&text, CT_BLOB_IN_MEMORY_MAX);
    enum ct_err err = ct_file_read(path, &text);
    if (err != CT_OK) {
        goto out;
    }
    const size_t cut = (size_t)((uint64_t)text.length * 9 / 10);
    const size_t begin = split == CT_SPLIT_TRAIN ? 0 : cut;
    const size_t end = split == CT_SPLIT_TRAIN ? cut : text.length;
    if (begin == end) {
        err = ct_fail(CT_ERR_CONFIG, "%s: holds too little text", path);
        goto out;
    }
    out->count = end - begin;
    out->tokens = malloc(out->count * sizeof *out->tokens);
    if (out->tokens == NULL) {
        err = ct_fail(CT_ERR_MEMORY, "%s: no memory for its text", path);
        goto out;
    }
    for (size_t i = 0; i < out->count; i++) {
        out->tokens[i] = text.data[begin + i];
    }
out:
    ct_buf_deinit(&text);
    return err;
}

enum ct_err ct_text_split_load(const struct ct_text_source *source, enum ct_split split,
                               struct ct_corpus *out, uint32_t *out_vocab) {
    if ((source->data_dir == NULL) == (source->text_path == NULL)) {
        return ct_fail(CT_ERR_USAGE, "name the text with either --data DIR or --text FILE");
    }
    if (source->text_path != NULL) {
        *out_vocab = BYTE_VOCAB;
        return load_text(source->text_path, split, out);
    }
    struct ct_dataset dataset;
    CT_TRY(ct_corpus_load_dir(source->data_dir, split, &dataset, out));
    *out_vocab = dataset.vocab;
    ct_dataset_deinit(&dataset);
    return CT_OK;
}
