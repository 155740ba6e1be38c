/* compress_log.c: see compress_log.h. */
#include "prune/compress/compress_log.h"

#include <math.h>

json_t *json_number(double v) { return isfinite(v) ? json_real(v) : json_null(); }

json_t *eval_json(const metrics *m, const char *split, const manifest *labels)
{
	json_t *classes = json_array();
	for (int i = 0; classes && i < m->num_classes; i++) {
		const class_metrics *c = &m->classes[i];
		json_array_append_new(classes, json_pack("{s:s, s:f, s:f, s:f, s:I}", "label", labels->labels[i].name, "precision",
							 c->precision, "recall", c->recall, "f1", c->f1, "support",
							 (json_int_t)c->support));
	}
	return json_pack("{s:s, s:I, s:o, s:o, s:o, s:o, s:o}", "split", split, "samples", (json_int_t)m->count, "accuracy",
			 json_number(m->accuracy), "macro_f1", json_number(m->macro_f1), "ece", json_number(m->ece), "nll",
			 json_number(m->nll), "classes", classes);
}

double eval_number(const json_t *eval, const char *key)
{
	const json_t *v = json_object_get(eval, key);
	return json_is_number(v) ? json_number_value(v) : NAN;
}
