/* Text from others: what may be shown to a person or stand in a record. */
#ifndef COTRAIN_TEXT_H
#define COTRAIN_TEXT_H

#include <cotrain/types.h>

/* Bytes of the character at the start of `bytes`: 1 to 4 for well-formed UTF-8 (RFC 3629: shortest
 * form, no surrogates, at most U+10FFFF) that is no control character (U+0000–001F, U+007F–009F);
 * 0 for anything else and for no bytes. */
size_t ct_text_character(struct ct_bytes bytes);

/* Whether all of it is such characters; true for no bytes. */
bool ct_text_printable(struct ct_bytes bytes);

#endif
