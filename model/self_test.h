/* self_test.h: the sample a model directory carries with its answer. Whoever is about to serve the model runs it first, and
 * knows that this machine computes what the publisher's did: weights, tokenizer, preprocessing, labels and kernels at once.
 *
 * In winnow.json:
 *   "self_test": {
 *     "image": "gradient-1",       // drawn by self_test_image
 *     "text": "限时特价",           // UTF-8, may be ""
 *     "assist": "",                // may be absent
 *     "probabilities": [0.81, …],  // one per label, in the manifest's order
 *     "tolerance": 0.001           // largest difference of a probability, above 0, at most 1
 *   }
 *
 * No state; the functions run on the thread that owns the session. */
#ifndef WINNOW_MODEL_SELF_TEST_H
#define WINNOW_MODEL_SELF_TEST_H

#include <jansson.h>

#include "base/error.h"
#include "model/classifier.h"
#include "model/image.h"

/* Draws the picture of that name; release with image_free. A name stands for the same pixels for ever: another picture
 * needs another name. WN_UNSUPPORTED for a name this build does not know. */
wn_code self_test_image(image *out, const char *name, wn_error *err);

/* Makes the object above from c's own answers; *out is the caller's reference. s is a session of c. Errors are
 * classifier_run's: a model whose answers are not finite gets no self test. */
wn_code self_test_make(json_t **out, const classifier *c, classifier_session *s, wn_error *err);

/* Runs m->self_test (usually classifier_checkpoint(c)->manifest's) on a session of c. WN_OK when every probability is
 * within the tolerance, or when m has none. WN_INVALID names the malformed key, or the label with both numbers. */
wn_code self_test_run(const classifier *c, classifier_session *s, const manifest *m, wn_error *err);

#endif
