/* cmd_classify.c: one image and text through the whole pipeline, answering with the JSON of POST /v1/audit, without a server. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "base/file.h"
#include "model/classifier.h"
#include "model/prompt.h"
#include "prune/commands.h"
#include "prune/options.h"

#define MAX_IMAGE_BYTES (64u << 20)

typedef struct request {
	const char *model, *image, *text, *assist, *data_id;
} request;

typedef struct timing {
	double decode_ms, preprocess_ms, inference_ms, total_ms;
} timing;

static double now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

/* 0.0123456 -> 0.0123: timings with more digits only look precise. */
static double rounded(double v, double unit) { return (double)(long long)(v / unit + 0.5) * unit; }

/* A registry keeps versions as NAME/VERSION: a directory name of digits is one. */
static json_t *version_of(const char *dir)
{
	size_t len = strlen(dir);
	while (len && dir[len - 1] == '/')
		len--;
	size_t start = len;
	while (start && isdigit((unsigned char)dir[start - 1]))
		start--;
	return start < len && (start == 0 || dir[start - 1] == '/') ? json_stringn(dir + start, len - start) : json_null();
}

static json_t *answer(const classifier *c, const request *rq, const float *probs, const timing *t)
{
	const checkpoint *ck = classifier_checkpoint(c);
	const verdict v = classifier_decide(c, probs);
	char id[48];
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(id, sizeof id, "cli-%llx%08lx", (unsigned long long)now.tv_sec, now.tv_nsec);
	/* Labels by falling probability, as the server answers. */
	int order[MAX_LABELS];
	const int n = classifier_num_labels(c);
	for (int i = 0; i < n; i++) {
		int at = i;
		for (; at > 0 && probs[order[at - 1]] < probs[i]; at--)
			order[at] = order[at - 1];
		order[at] = i;
	}
	json_t *labels = json_array();
	for (int i = 0; i < n; i++)
		json_array_append_new(labels, json_pack("{s:s, s:f}", "name", classifier_label(c, order[i])->name, "score",
		                                        rounded(probs[order[i]], 1e-6)));
	json_t *root = json_pack("{s:s}", "request_id", id);
	if (rq->data_id)
		json_object_set_new(root, "data_id", json_string(rq->data_id));
	json_object_update_new(root, json_pack("{s:s, s:s, s:f, s:o}", "suggestion", action_name(v.suggestion), "label",
	                                   classifier_label(c, v.label)->name, "score", rounded(v.score, 1e-6), "labels", labels));
	json_object_set_new(root, "model", json_pack("{s:s, s:o, s:s}", "name", ck->manifest.name, "version",
	                                             version_of(rq->model), "digest", ck->digest));
	json_object_set_new(root, "timing_ms",
	                    json_pack("{s:f, s:f, s:f, s:f, s:f}", "queue", 0.0, "decode", rounded(t->decode_ms, 1e-3),
	                              "preprocess", rounded(t->preprocess_ms, 1e-3), "inference",
	                              rounded(t->inference_ms, 1e-3), "total", rounded(t->total_ms, 1e-3)));
	return root;
}

static wn_code run(classifier *c, classifier_session *s, const request *rq, float *probs, timing *t, wn_error *err)
{
	const image_processor *ip = &classifier_checkpoint(c)->image_processor;
	int32_t ids[PROMPT_MAX_TOKENS];
	int count = 0;
	image img = {0};
	char *bytes = NULL;
	size_t len = 0;
	float *pixels = malloc(3 * (size_t)ip->size * (size_t)ip->size * sizeof *pixels);
	wn_code rc = pixels ? WN_OK : wn_fail(err, WN_NOMEM, "out of memory for %d x %d pixels", ip->size, ip->size);
	if (rc || (rc = file_read(rq->image, MAX_IMAGE_BYTES, &bytes, &len, err)))
		goto done;
	const double start = now_ms();
	if ((rc = image_decode_for(&img, bytes, len, NULL, ip->size, ip->size, err))) { /* as the server does */
		wn_fail_prefix(err, "%.200s", rq->image);
		goto done;
	}
	const double decoded = now_ms();
	if ((rc = image_preprocess(pixels, ip, &img, err)) ||
	    (rc = classifier_encode_prompt(c, rq->text, rq->assist, ids, &count, err)))
		goto done;
	const double prepared = now_ms();
	const classifier_input in = {pixels, ids, count};
	rc = classifier_run(s, &in, 1, probs, err);
	const double end = now_ms();
	*t = (timing){decoded - start, prepared - decoded, end - prepared, end - start};
done:
	free(pixels);
	image_free(&img);
	free(bytes);
	return rc;
}

int cmd_classify(int argc, char **argv)
{
	request rq = {.assist = ""};
	const option_spec options[] = {
		{"model", OPTION_STRING, &rq.model, "DIR", "model directory with winnow.json", .required = true},
		{"image", OPTION_STRING, &rq.image, "FILE", "JPEG or PNG", .required = true},
		{"text", OPTION_TEXT, &rq.text, "TEXT", "the ad's copy, UTF-8; may be empty", .required = true},
		{"assist", OPTION_TEXT, &rq.assist, "TEXT", "assistant details: OCR text, licence numbers, declared industry"},
		{"data-id", OPTION_STRING, &rq.data_id, "ID", "returned in the answer"},
		{0}};
	const command_info info = {"classify", "one image and text to the JSON that POST /v1/audit answers",
	                           "winnow-prune classify --model registry/ad-audit/1 --image ad.jpg --text '买一送一'", options};
	int rc = options_parse(&info, argc, argv);
	if (rc != OPTIONS_OK)
		return rc == OPTIONS_HELP ? EXIT_DONE : EXIT_USAGE;
	classifier *c = NULL;
	classifier_session *s = NULL;
	float probs[MAX_LABELS];
	timing t = {0};
	wn_error err = {0};
	wn_code code = classifier_open(&c, rq.model, NULL, &err);
	if (code == WN_OK)
		code = classifier_session_open(&s, c, 1, &err);
	if (code == WN_OK)
		code = run(c, s, &rq, probs, &t, &err);
	if (code == WN_OK) {
		json_t *root = answer(c, &rq, probs, &t);
		json_dumpf(root, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(7));
		putchar('\n');
		json_decref(root);
	}
	classifier_session_close(&s);
	classifier_close(&c);
	return code ? command_fail(&info, &err) : EXIT_DONE;
}
