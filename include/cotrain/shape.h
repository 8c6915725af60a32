/* The shape of a model: everything that its code and its catalogue of parameters follow from. */
#ifndef COTRAIN_SHAPE_H
#define COTRAIN_SHAPE_H

#include <cotrain/err.h>
#include <cotrain/types.h>

enum ct_arch {
    CT_ARCH_GPT2 = 1,  /* learned positions, LayerNorm, GELU (tanh form), biases, tied head */
    CT_ARCH_LLAMA = 2, /* RoPE in Hugging Face's half-split order, RMSNorm, SwiGLU, grouped queries,
                          no biases, tied or untied head */
};

/* What is zero below `width` stands for what the architecture has there by itself. A GPT-2 has
 * nothing else there; a Llama's `hidden` has to be given and its `tied` means what it says. Any
 * layout's shape is settled: every field is filled, and code for all architectures may read it. */
struct ct_model_shape {
    enum ct_arch arch;
    uint32_t vocab;   /* V */
    uint32_t context; /* T */
    uint32_t layers;  /* L */
    uint32_t heads;
    uint32_t width;     /* D, a multiple of heads; a Llama's heads have an even width */
    uint32_t kv_heads;  /* heads of keys and values, a divisor of heads; by itself: heads */
    uint32_t hidden;    /* width of the MLP; by itself: 4·D */
    bool tied;          /* the head is the token embedding; GPT-2: always */
    float norm_epsilon; /* by itself: 1e-5 */
    float rope_theta;   /* base of RoPE's frequencies, by itself: 10,000; GPT-2: stays 0 */
};

/* Fills what is zero and checks the whole. CT_ERR_CONFIG with the reason; the shape is unchanged
 * then. */
CT_MUST_CHECK enum ct_err ct_shape_settle(struct ct_model_shape *shape);

/* Parameters of a settled shape; at most CT_PARAMETERS_MAX. */
uint64_t ct_shape_parameters(const struct ct_model_shape *shape);

/* The name as manifests and command lines spell it ("gpt2", "llama"), and back (CT_ERR_CONFIG). */
const char *ct_arch_name(enum ct_arch arch);
CT_MUST_CHECK enum ct_err ct_arch_parse(const char *name, enum ct_arch *out);

#endif
