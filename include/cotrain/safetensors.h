/* Files of named tensors in the safetensors format (huggingface.co/docs/safetensors): 8 bytes of
 * length, a JSON header, then the values, little-endian and without holes. For a whole model see
 * model_dir.h.
 *
 *     struct ct_safetensors *file;
 *     CT_TRY(ct_safetensors_open(path, &file));
 *     const struct ct_safetensors_entry *entry = ct_safetensors_find(file, "lm_head.weight");
 *     enum ct_err err = entry != NULL ? ct_safetensors_read(file, entry, out) : …;
 *     ct_safetensors_close(file); */
#ifndef COTRAIN_SAFETENSORS_H
#define COTRAIN_SAFETENSORS_H

#include <cotrain/layout.h>

enum { CT_SAFETENSORS_DIMENSIONS_MAX = 8 };

struct ct_safetensors_entry {
    char *name;
    char type[8]; /* "F32", "BF16", "F16", "I64", … */
    uint32_t dimension_count;
    uint64_t dimensions[CT_SAFETENSORS_DIMENSIONS_MAX];
    uint64_t values; /* the dimensions' product */
    uint64_t begin;  /* in the file */
    uint64_t bytes;
};

struct ct_safetensors; /* an open file */

/* Opens a stranger's file and checks all of its header: types, sizes, no holes, no overlaps.
 * CT_ERR_FORMAT with what is wrong; nothing is owned then. */
CT_MUST_CHECK enum ct_err ct_safetensors_open(const char *path, struct ct_safetensors **out);
void ct_safetensors_close(struct ct_safetensors *file);

/* Entries in byte order of their names; they belong to the file. */
size_t ct_safetensors_count(const struct ct_safetensors *file);
const struct ct_safetensors_entry *ct_safetensors_at(const struct ct_safetensors *file,
                                                     size_t index);
const struct ct_safetensors_entry *ct_safetensors_find(const struct ct_safetensors *file,
                                                       const char *name);

/* The values of an F32, BF16 or F16 tensor (CT_ERR_UNSUPPORTED for another), exactly, but
 * subnormals as signed zeros (numerics.md E9): out[entry->values]. CT_ERR_NUMERIC for a value that
 * is not finite, CT_ERR_IO. */
CT_MUST_CHECK enum ct_err ct_safetensors_read(const struct ct_safetensors *file,
                                              const struct ct_safetensors_entry *entry, float *out);

/* One string of a file's metadata; of printable text without quotes or backslashes (asserted). */
struct ct_safetensors_note {
    const char *key, *value;
};

/* Writes values[layout->parameters] as the layout's tensors, F32, and "format": "pt" besides the
 * notes; the file is replaced durably. */
CT_MUST_CHECK enum ct_err ct_safetensors_save(const char *path, const struct ct_layout *layout,
                                              const float *values,
                                              const struct ct_safetensors_note *notes,
                                              size_t note_count);

#endif
