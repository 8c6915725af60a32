/* Licences are named by SPDX expressions (SPDX 2.3, annex D). */
#ifndef COTRAIN_SPDX_H
#define COTRAIN_SPDX_H

#include <cotrain/err.h>

/* Checks the form: identifiers of letters, digits, '.', '-' ('+' at the end, ':' in references)
 * joined by AND, OR, WITH, with parentheses. Whether an identifier is on SPDX's list is not
 * checked; LicenseRef-NAME is for what has none. CT_ERR_CONFIG with the reason. */
CT_MUST_CHECK enum ct_err ct_spdx_check(const char *expression);

#endif
