/* keep_json.h: what a pruning step kept, read back from what keep_json (keep.h) wrote: a resumed run slices the same model again
 * without scoring anything. */
#ifndef WINNOW_PRUNE_COMPRESS_KEEP_JSON_H
#define WINNOW_PRUNE_COMPRESS_KEEP_JSON_H

#include "prune/compress/keep.h"

/* from: the shape of the model that was sliced; to: of the result, as keep_choose was given it. Everything that slice.h relies on
 * is checked: WN_INVALID names the shape that is another one, or the list or number that is missing or does not fit them. *out is
 * zeroed on failure. */
wn_code keep_parse(keep *out, const json_t *j, const blip2_config *from, const blip2_config *to, wn_error *err);

#endif
