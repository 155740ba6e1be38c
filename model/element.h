/* element.h: what buffers of the serving engine hold. */
#ifndef WINNOW_MODEL_ELEMENT_H
#define WINNOW_MODEL_ELEMENT_H

#include <stddef.h>

typedef enum element { ELEMENT_F32, ELEMENT_BF16, ELEMENT_S8, ELEMENT_U8, ELEMENT_S32 } element;

/* Bytes. */
static inline size_t element_size(element e) { return e == ELEMENT_F32 || e == ELEMENT_S32 ? 4 : e == ELEMENT_BF16 ? 2 : 1; }

#endif
