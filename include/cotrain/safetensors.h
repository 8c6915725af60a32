/* A model directory in Hugging Face layout: config.json, model.safetensors (F32, names of the
 * layout), tokenizer.json where the tokenizer has one. */
#ifndef COTRAIN_SAFETENSORS_H
#define COTRAIN_SAFETENSORS_H

#include <cotrain/layout.h>

/* Writes the directory (made if missing), each file replaced durably. */
CT_MUST_CHECK enum ct_err ct_model_save(const char *dir, const struct ct_layout *layout,
                                        const float *theta);
/* Reads a directory from a stranger: shape from config.json, then all tensors, checked for names,
 * shapes, holes and finite values (subnormals become signed zero). On success the caller ends the
 * layout with ct_layout_deinit and frees *out_theta. */
CT_MUST_CHECK enum ct_err ct_model_load(const char *dir, struct ct_layout *layout,
                                        float **out_theta);

#endif
