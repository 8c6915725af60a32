/* A model directory in Hugging Face layout: config.json, model.safetensors, and tokenizer.json
 * where the tokenizer has one. GPT-2 and Llama. */
#ifndef COTRAIN_MODEL_DIR_H
#define COTRAIN_MODEL_DIR_H

#include <cotrain/layout.h>

/* Writes the directory (made if missing), each file replaced durably; tensors are F32. */
CT_MUST_CHECK enum ct_err ct_model_save(const char *dir, const struct ct_layout *layout,
                                        const float *theta);

/* Reads a stranger's directory, also one that other programs wrote: the shape from config.json,
 * then every tensor, F32, BF16 or F16, under its name with or without the architecture's prefix.
 * What the engine computes otherwise, a missing or unknown tensor, another shape and values that
 * are not finite are refused; subnormals become signed zeros. On success the caller ends the layout
 * with ct_layout_deinit and frees *out_theta; on failure (CT_ERR_FORMAT, CT_ERR_UNSUPPORTED,
 * CT_ERR_CONFIG, CT_ERR_NUMERIC, CT_ERR_NOT_FOUND, CT_ERR_IO, CT_ERR_MEMORY, with file and reason)
 * nothing is owned. */
CT_MUST_CHECK enum ct_err ct_model_load(const char *dir, struct ct_layout *layout,
                                        float **out_theta);

/* The shape alone, settled. */
CT_MUST_CHECK enum ct_err ct_model_load_shape(const char *dir, struct ct_model_shape *out);

#endif
