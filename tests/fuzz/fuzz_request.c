/* The whole way of an audit in one process, with a tiny model: body -> fields -> image -> prompt -> labels -> answer. The input's
 * first line is the Content-Type header, the rest the body.
 *
 * Either a refusal with its reason, or an answer that is JSON, names the version that computed it and has probabilities that add
 * up to 1; and the server's own failures ("internal") are none of a client's doing. */
#include <math.h>

#include "../server/in_process.h"
#include "fuzz_files.h"
#include "server/answers.h"
#include "server/fields.h"
#include "tiny_classifier.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static in_process *server;

static void stop(void) { in_process_close(&server); }

static void start(void)
{
	/* Small limits: what is beyond them is refused soon, and the fuzzer sees more. */
	static const char *const settings[] = {"model.name=tiny", "limits.body=64KiB", "limits.image=32KiB", "limits.text=1KiB",
					       "limits.image_side=256", "limits.image_pixels=16384", "inference.queue_capacity=4", NULL};
	char path[128];
	wn_error err = {0};
	snprintf(path, sizeof path, "%s/tiny", fuzz_dir());
	mkdir(path, 0700);
	snprintf(path, sizeof path, "%s/tiny/1", fuzz_dir());
	if (tiny_classifier_write(path, &(tiny_classifier){.seed = 1}, &err) != WN_OK ||
	    in_process_open(&server, fuzz_dir(), settings, &err) != WN_OK) {
		fprintf(stderr, "%s\n", err.message);
		abort();
	}
	atexit(stop);
}

static void check_answer(const request *r)
{
	double sum = 0;
	size_t i;
	json_t *root = json_loadb(r->answer, r->answer_len, 0, NULL), *label;
	json_t *labels = json_object_get(root, "labels");
	const char *version = json_string_value(json_object_get(json_object_get(root, "model"), "version"));
	json_array_foreach(labels, i, label)
	{
		const double score = json_real_value(json_object_get(label, "score"));
		if (!(score >= 0 && score <= 1))
			abort();
		sum += score;
	}
	if (json_array_size(labels) != 2 || !(fabs(sum - 1) < 1e-4) || !version || strcmp(version, "1") != 0)
		abort();
	json_decref(root);
}

static void check_refusal(const request *r)
{
	char *problem = answer_problem(r);
	json_t *root = problem ? json_loads(problem, 0, NULL) : NULL;
	if (r->answer || !*r->detail || r->outcome == REASON_INTERNAL || r->outcome == REASON_OUT_OF_MEMORY || !root)
		abort();
	json_decref(root);
	free(problem);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char type[sizeof((request *)0)->content_type];
	size_t len = 0;
	const size_t body = size ? fuzz_line(data, size, &len) : 0;
	if (!server)
		start();
	if (len >= sizeof type || memchr(data, 0, len))
		return 0;
	memcpy(type, data, len);
	type[len] = 0;
	if (body_kind_of(type) == BODY_NONE) /* refused by its headers */
		return 0;
	request *r = in_process_ask(server, type, data + body, size - body);
	if (!r)
		abort();
	if (r->outcome == REASON_OK)
		check_answer(r);
	else
		check_refusal(r);
	in_process_put(server, r);
	return 0;
}
