/* engine_probe.h: what a model would run on here, asked of its shape alone. */
#ifndef WINNOW_MODEL_ENGINE_PROBE_H
#define WINNOW_MODEL_ENGINE_PROBE_H

#include "model/engine.h"

#define ENGINE_PROBE_SIZE 128

/* What engine_describe would say of a model of this shape in precision p. Opens a small engine and closes it. */
wn_code engine_probe(char text[ENGINE_PROBE_SIZE], const blip2_config *shape, precision p, wn_error *err);

#endif
