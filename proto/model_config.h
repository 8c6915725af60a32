/* config.json of a model directory: the shape as Hugging Face's programs write it. */
#ifndef COTRAIN_PROTO_MODEL_CONFIG_H
#define COTRAIN_PROTO_MODEL_CONFIG_H

#include <cotrain/layout.h>

/* Settled on success. CT_ERR_FORMAT for what is malformed or missing, CT_ERR_UNSUPPORTED for a
 * model that the engine computes otherwise, CT_ERR_CONFIG for an impossible shape; each with the
 * file. */
CT_MUST_CHECK enum ct_err ct_model_config_load(const char *path, struct ct_model_shape *out);

/* Replaced durably. `shape` is settled. */
CT_MUST_CHECK enum ct_err ct_model_config_save(const char *path,
                                               const struct ct_model_shape *shape);

#endif
