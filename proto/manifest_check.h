/* Rules for a manifest's values, the same for the operator's YAML and for the blob. */
#ifndef COTRAIN_PROTO_MANIFEST_CHECK_H
#define COTRAIN_PROTO_MANIFEST_CHECK_H

#include <cotrain/manifest.h>

#define CT_MANIFEST_SOURCE_BYTES_MAX 262144u /* of the operator's YAML */

/* CT_ERR_CONFIG with a sentence that names the value; *out_section and *out_key are then where
 * RUN.yaml says it (static text). */
CT_MUST_CHECK enum ct_err ct_manifest_check(const struct ct_manifest *manifest,
                                            const char **out_section, const char **out_key);

#endif
