/* The catalogue of a model's parameters: which tensors there are, their shapes, and where each lies
 * in the one flat binary32 array that θ, m, v, e and gradients all use.
 *
 * Tensors stand in the byte order of their names, back to back, so the flat array as little-endian
 * binary32 is what digests, snapshots and the state digest cover (numerics.md, SL1). Names and
 * orientation are Hugging Face's: GPT-2's matrices are stored input × output, Llama's output ×
 * input, row-major. */
#ifndef COTRAIN_LAYOUT_H
#define COTRAIN_LAYOUT_H

#include <cotrain/err.h>
#include <cotrain/limits.h>
#include <cotrain/shape.h>

enum ct_tensor_kind {
    CT_TENSOR_MATRIX,    /* decayed; chunked in 64×64 tiles */
    CT_TENSOR_EMBEDDING, /* token embedding, head, positions: decayed; chunks of whole rows */
    CT_TENSOR_VECTOR,    /* gains and biases: not decayed; runs of 4,096 */
};

struct ct_tensor {
    char name[CT_TENSOR_NAME_MAX];
    enum ct_tensor_kind kind;
    uint32_t rows; /* 1 for a vector */
    uint32_t columns;
    size_t offset; /* index of its first value in the flat array */
};

struct ct_layout {
    struct ct_model_shape shape;
    uint32_t tensor_count;
    size_t parameters;         /* values in the flat array */
    struct ct_tensor *tensors; /* owned; in byte order of names */
};

/* Settles the shape (CT_ERR_CONFIG with the reason) and builds the catalogue. On success the caller
 * ends it with ct_layout_deinit; on failure nothing is owned. */
CT_MUST_CHECK enum ct_err ct_layout_init(struct ct_layout *layout,
                                         const struct ct_model_shape *shape);
void ct_layout_deinit(struct ct_layout *layout);

/* The tensor of that name, or NULL. */
const struct ct_tensor *ct_layout_find(const struct ct_layout *layout, const char *name);

/* Draws the first model θ₀ into theta[parameters]: a function of (layout, seed) alone, to the bit.
 * Normal with deviation 0.02 for matrices and embeddings, divided by √(2L) for the two projections
 * that end in the residual stream (GPT-2's c_proj, Llama's o_proj and down_proj); gains 1, biases
 * 0. `seed` is the run seed.
 * Value j of the flat array takes Philox block j (stream init, sub-stream 0), words w0…w3: with
 * u(h, l) = (⌊(h·2^32 + l)/2^11⌋ + 1)/2^53 it is the binary64 product
 * √(−2 log u(w0, w1)) · cos(2π u(w2, w3)) · deviation, rounded once to binary32. */
void ct_layout_draw(const struct ct_layout *layout, const struct ct_hash *seed, float *theta);

#endif
