/* answers.c: see answers.h. Scores are floats: seven digits say all they know. */
#include "server/answers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_text.h"

char *answer_dump(json_t *document)
{
	if (!document)
		return NULL;
	char *text = json_write(document, JSON_COMPACT | JSON_REAL_PRECISION(7));
	json_decref(document);
	return text;
}

json_t *json_milliseconds(int64_t ns) { return json_real(round((double)ns / 1e3) / 1e3); }

/* Indices of the n largest-first scores; n is at most MAX_LABELS. Equal scores keep the manifest's order. */
static void sort_by_score(int *order, const float *scores, int n)
{
	for (int i = 0; i < n; i++) {
		int k = i;
		while (k > 0 && scores[order[k - 1]] < scores[i]) {
			order[k] = order[k - 1];
			k--;
		}
		order[k] = i;
	}
}

char *answer_audit(const request *r)
{
	const classifier *c = r->model->classifier;
	int order[MAX_LABELS];
	int n = classifier_num_labels(c);
	sort_by_score(order, r->probs, n);
	bool whole = true; /* out of memory: no answer, rather than one without a label */
	json_t *labels = json_array();
	for (int i = 0; i < n; i++)
		whole &= json_array_append_new(labels, json_pack("{s:s, s:f}", "name", classifier_label(c, order[i])->name,
								 "score", (double)r->probs[order[i]])) == 0;
	json_t *timing = json_pack("{s:o, s:o, s:o, s:o, s:o}", "queue", json_milliseconds(r->stage_ns[STAGE_QUEUE]),
				   "decode", json_milliseconds(r->stage_ns[STAGE_DECODE]), "preprocess",
				   json_milliseconds(r->stage_ns[STAGE_PREPROCESS]), "inference",
				   json_milliseconds(r->stage_ns[STAGE_INFERENCE]), "total",
				   json_milliseconds(r->answered_ns - r->received_ns));
	json_t *root = json_pack("{s:s}", "request_id", r->id);
	if (root && r->data_id[0])
		whole &= json_object_set_new(root, "data_id", json_string(r->data_id)) == 0;
	json_t *rest = json_pack(
	    "{s:s, s:s, s:f, s:o, s:{s:s, s:s, s:s}, s:o}", "suggestion", action_name(r->verdict.suggestion), "label",
	    classifier_label(c, r->verdict.label)->name, "score", (double)r->verdict.score, "labels", labels, "model",
	    "name", r->model->name, "version", r->model->version, "digest", r->model->digest, "timing_ms", timing);
	if (rest && r->cached)
		whole &= json_object_set_new(rest, "cached", json_true()) == 0;
	if (!whole || !root || !rest || json_object_update(root, rest) != 0) {
		json_decref(root);
		root = NULL;
	}
	json_decref(rest);
	return answer_dump(root);
}

char *answer_problem(const request *r)
{
	char type[80] = "urn:winnow:problem:";
	strncat(type, reason_name(r->outcome), sizeof type - strlen(type) - 1);
	return answer_dump(json_pack("{s:s, s:s, s:i, s:s, s:s, s:s}", "type", type, "title", reason_title(r->outcome),
				     "status", reason_status(r->outcome), "detail", r->detail, "reason",
				     reason_name(r->outcome), "request_id", r->id));
}

char *answer_v2_error(const request *r)
{
	return answer_dump(json_pack("{s:s, s:s, s:s}", "error", r->detail[0] ? r->detail : reason_title(r->outcome),
				     "reason", reason_name(r->outcome), "request_id", r->id));
}

char *answer_server_metadata(void)
{
	return answer_dump(
	    json_pack("{s:s, s:s, s:[s]}", "name", "winnow-serve", "version", WINNOW_VERSION, "extensions", "model_repository"));
}

char *answer_model_metadata(const served_model *m, const placement *p)
{
	const checkpoint *ckpt = classifier_checkpoint(m->classifier);
	json_t *labels = json_array();
	for (int i = 0; i < classifier_num_labels(m->classifier); i++) {
		const label_spec *l = classifier_label(m->classifier, i);
		json_array_append_new(labels,
				      json_pack("{s:s, s:s}", "name", l->name, "action", action_name(l->action)));
	}
	return answer_dump(
	    json_pack("{s:s, s:[s], s:s, s:[{s:s, s:s, s:[i]}, {s:s, s:s, s:[i]}, {s:s, s:s, s:[i]}], s:[{s:s, s:s, "
		      "s:[i]}], s:{s:s, s:s, "
		      "s:s, s:{s:s, s:i, s:i, s:b, s:b}, s:i, s:I, s:o}}",
		      "name", m->name, "versions", m->version, "platform", "winnow_blip2_opt", "inputs", "name",
		      "image", "datatype", "BYTES", "shape", 1, "name", "text", "datatype", "BYTES", "shape", 1, "name",
		      "assist", "datatype", "BYTES", "shape", 1, "outputs", "name", "scores", "datatype", "FP32",
		      "shape", classifier_num_labels(m->classifier), "parameters", "digest", m->digest, "precision",
		      PRECISION_NAMES[engine_precision(classifier_engine(m->classifier))], "engine",
		      engine_describe(classifier_engine(m->classifier)), "inference", "mode", p->mode, "instances", p->instances,
		      "threads", classifier_session_threads(m->sessions[0]), "pinned", p->pinned, "oversubscribed", p->oversubscribed, "image_size", ckpt->image_processor.size, "parameter_count",
		      (json_int_t)blip2_parameter_count(ckpt->model), "labels", labels));
}

char *answer_ready(const char *name, const char *version)
{
	return answer_dump(json_pack("{s:s, s:s, s:b}", "name", name, "version", version, "ready", 1));
}
