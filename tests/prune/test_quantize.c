/* test_quantize.c: `winnow-prune quantize` on the bundled student and the sample ads: what is written runs as the same precision made in
 * memory does, bit for bit; layers stay in bf16 when asked to; what is damaged or no use is refused. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/classifier.h"
#include "model/safetensors.h"
#include "prune/ad_input.h"
#include "tests/engine/golden.h"
#include "tests/engine/program.h"

#define STUDENT ROOT "/registry/ad-audit/2"
#define SAMPLES ROOT "/tests/samples"

static wn_error err;
static char work[] = "/tmp/quantize-XXXXXX";

static const char *at(const char *name)
{
	static char paths[8][256];
	static int next;
	char *p = paths[next++ % 8];
	snprintf(p, sizeof paths[0], "%s/%s", work, name);
	return p;
}

static void quantize_ok(outcome *o, const char *const *words)
{
	run_program(o, NULL, words);
	if (o->exit_code)
		fail_msg("%s", o->err);
}

/* Probabilities of some sample ads by the model in dir; precision NULL: its own. Returns what its engine says. */
static int answers(const char *dir, const precision *p, float probs[8][MAX_LABELS])
{
	classifier *c;
	classifier_session *s;
	dataset d;
	const classifier_options o = {.load.verify_digests = true, .precision = p};
	assert_ok(classifier_open(&c, dir, &o, &err), &err);
	assert_ok(classifier_session_open(&s, c, 1, &err), &err);
	const manifest *m = &classifier_checkpoint(c)->manifest;
	const size_t size = (size_t)classifier_checkpoint(c)->image_processor.size;
	assert_ok(dataset_read(&d, SAMPLES, "test", m->labels, m->num_labels, DATASET_NEEDS_LABEL, 8, &err), &err);
	float *pixels = calloc(3 * size * size, sizeof *pixels);
	int32_t *ids = calloc((size_t)m->max_text_tokens, sizeof *ids);
	for (size_t i = 0; i < 8; i++) {
		classifier_input in;
		assert_ok(ad_input_load(&in, c, &d, i, MODALITIES_BOTH, pixels, ids, NULL, &err), &err);
		assert_ok(classifier_run(s, &in, 1, probs[i], &err), &err);
	}
	const int int8 = engine_count_layers(classifier_engine(c), PRECISION_INT8);
	free(pixels);
	free(ids);
	dataset_close(&d);
	classifier_session_close(&s);
	classifier_close(&c);
	return int8;
}

static void what_is_written_runs_as_it_does_in_memory(void **state)
{
	static float stored[8][MAX_LABELS], made[8][MAX_LABELS], plain[8][MAX_LABELS];
	const precision int8 = PRECISION_INT8;
	outcome o;
	quantize_ok(&o, (const char *const[]){"quantize", "--model", STUDENT, "--data", SAMPLES, "--split", "test", "--samples", "20",
					       "--out", at("int8"), "--layer-cosine", "0", "--model-cosine", "0", "--max-loss", "100", NULL});
	assert_non_null(strstr(o.out, "33 of 34 layers in int8"));
	assert_null(strstr(o.out, "int8           -         -"));
	assert_non_null(strstr(o.out, "as written"));
	assert_int_equal(answers(at("int8"), NULL, stored), 33);
	assert_int_equal(answers(STUDENT, &int8, made), 33);
	assert_int_equal(answers(STUDENT, NULL, plain), 0);
	for (int i = 0; i < 8; i++)
		for (int l = 0; l < 9; l++) {
			assert_true(stored[i][l] == made[i][l]);
			assert_true(fabsf(stored[i][l] - plain[i][l]) < 0.05f);
		}
}

/* Read as f32, an I8 tensor is its rows rounded to their scales. */
static void stored_weights_are_rounded_ones(void **state)
{
	checkpoint a, b;
	const checkpoint_options o = {.skip_digest = true};
	size_t rounded = 0;
	assert_ok(checkpoint_load(&a, STUDENT, &o, &err), &err);
	assert_ok(checkpoint_load(&b, at("int8"), &o, &err), &err);
	assert_int_equal(checkpoint_precision(&a), PRECISION_F32);
	assert_int_equal(checkpoint_precision(&b), PRECISION_INT8);
	assert_true(b.has_manifest && b.stores_int8 && !a.stores_int8);
	b.has_manifest = false; /* a checkpoint without winnow.json */
	assert_int_equal(checkpoint_precision(&b), PRECISION_INT8);
	b.has_manifest = true;
	for (size_t i = 0; i < blip2_num_params(a.model); i++) {
		const param *p = blip2_param(a.model, i);
		const float *x = blip2_weights(a.model) + p->offset, *y = blip2_weights(b.model) + p->offset;
		const size_t rows = (size_t)p->shape[0], width = p->count / rows;
		for (size_t r = 0; r < rows; r++) {
			float most = 0;
			for (size_t k = 0; k < width; k++)
				most = fmaxf(most, fabsf(x[r * width + k]));
			for (size_t k = 0; k < width; k++) {
				const float apart = fabsf(x[r * width + k] - y[r * width + k]);
				assert_true(apart <= (p->decay ? fmaxf(most / 253, most * 0x1p-8f) : 0));
				rounded += apart > 0;
			}
		}
	}
	assert_true(rounded > 100000);
	checkpoint_close(&a);
	checkpoint_close(&b);
}

static void dear_layers_stay_in_bf16(void **state)
{
	static float probs[8][MAX_LABELS];
	outcome o;
	quantize_ok(&o, (const char *const[]){"quantize", "--model", STUDENT, "--data", SAMPLES, "--split", "test", "--samples", "6", "--out",
					       at("none"), "--layer-cosine", "1", "--model-cosine", "0", NULL});
	assert_non_null(strstr(o.out, "0 of 34 layers in int8"));
	assert_int_equal(answers(at("none"), NULL, probs), 0);
	/* until the whole is near enough: out of reach, said, and written all the same */
	quantize_ok(&o, (const char *const[]){"quantize", "--model", STUDENT, "--data", SAMPLES, "--split", "test", "--samples", "6", "--out",
					       at("never"), "--layer-cosine", "0", "--model-cosine", "1", "--json", NULL});
	assert_non_null(strstr(o.err, "does not reach --model-cosine 1"));
	json_t *said = json_loads(o.out, 0, NULL);
	assert_int_equal(json_array_size(json_object_get(said, "layers")), 34);
	json_decref(said);
}

static void quick_asks_for_layers_only_when_it_must(void **state)
{
	static float probs[8][MAX_LABELS];
	outcome o;
	quantize_ok(&o, (const char *const[]){"quantize", "--model", STUDENT, "--data", SAMPLES, "--split", "test", "--samples", "6", "--out",
					       at("quick"), "--quick", "--max-loss", "100", NULL});
	assert_non_null(strstr(o.out, "33 of 34 layers in int8"));
	assert_non_null(strstr(o.out, "int8           -         -")); /* not tried alone */
	assert_int_equal(answers(at("quick"), NULL, probs), 33);
	quantize_ok(&o, (const char *const[]){"quantize", "--model", STUDENT, "--data", SAMPLES, "--split", "test", "--samples", "6", "--out",
					       at("quick"), "--quick", "--max-loss", "100", "--model-cosine", "1", "--layer-cosine", "1", NULL});
	assert_non_null(strstr(o.out, "0 of 34 layers in int8"));
}

static void bf16_is_rounded_and_run_as_such(void **state)
{
	static float stored[8][MAX_LABELS], made[8][MAX_LABELS];
	const precision bf16 = PRECISION_BF16;
	outcome o;
	quantize_ok(&o, (const char *const[]){"quantize", "--model", STUDENT, "--precision", "bf16", "--out", at("bf16"), NULL});
	assert_int_equal(answers(at("bf16"), NULL, stored), 0);
	answers(STUDENT, &bf16, made);
	for (int i = 0; i < 8; i++)
		for (int l = 0; l < 9; l++)
			assert_true(fabsf(stored[i][l] - made[i][l]) < 1e-6f);
}

/* The quantised model's tensors, all but `without`, with the first number of `spoiled` not finite. */
static void rewrite(const char *without, const char *spoiled)
{
	safetensors *st;
	outcome o;
	RUN(&o, "quantize", "--model", STUDENT, "--out", at("damaged"), "--samples", "1");
	assert_int_equal(o.exit_code, 0); /* random inputs do as well */
	assert_ok(safetensors_open_dir(&st, at("damaged"), &err), &err);
	safetensors_entry *entries = calloc(safetensors_count(st), sizeof *entries);
	float *copy = NULL;
	size_t count = 0;
	for (size_t i = 0; i < safetensors_count(st); i++) {
		const char *name;
		const tensor *t = safetensors_at(st, i, &name);
		if (without && !strcmp(name, without))
			continue;
		entries[count] = (safetensors_entry){name, *t};
		if (spoiled && !strcmp(name, spoiled)) {
			copy = calloc((size_t)t->shape[0], sizeof *copy);
			memcpy(copy, t->data, (size_t)t->shape[0] * sizeof *copy);
			copy[0] = NAN;
			entries[count].tensor.data = copy;
		}
		count++;
	}
	assert_ok(safetensors_write(at("damaged/model.safetensors"), entries, count, &err), &err);
	free(entries);
	free(copy);
	safetensors_close(&st);
}

static void refuse_damaged(const char *word, const char *more)
{
	outcome o;
	RUN(&o, "bench", "--model", at("damaged"), "--runs", "1");
	assert_refused(&o, 1, word);
	assert_non_null(strstr(o.err, more));
}

static void damaged_scales_are_named(void **state)
{
	const char *scale = "language_model.model.decoder.layers.0.fc1.weight_scale";
	rewrite(scale, NULL);
	refuse_damaged(scale, "missing");
	rewrite(NULL, scale);
	refuse_damaged(scale, "expected a finite scale");
	rewrite("language_model.model.decoder.layers.0.fc1.weight", NULL);
	refuse_damaged("language_model.model.decoder.layers.0.fc1.weight", "missing");
}

static void what_is_no_use_is_refused(void **state)
{
	outcome o;
	RUN(&o, "quantize", "--model", at("int8"), "--out", at("again"));
	assert_refused(&o, 1, "is quantised already");
	RUN(&o, "quantize", "--model", STUDENT, "--data", at("nothing"), "--out", at("again"));
	assert_refused(&o, 1, "nothing");
	assert_ok(file_write_atomic(at("note"), "x", 1, &err), &err);
	RUN(&o, "quantize", "--model", STUDENT, "--out", at("note"));
	assert_refused(&o, 1, "not a directory");
	RUN(&o, "quantize", "--model", STUDENT, "--precision", "int4", "--out", at("again"));
	assert_refused(&o, 2, "int4");
}

static int make_work(void **state) { return mkdtemp(work) ? 0 : -1; }

static int remove_work(void **state)
{
	char line[300];
	snprintf(line, sizeof line, "rm -rf '%s'", work);
	return system(line);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_runs_as_it_does_in_memory),
		cmocka_unit_test(stored_weights_are_rounded_ones),
		cmocka_unit_test(dear_layers_stay_in_bf16),
		cmocka_unit_test(quick_asks_for_layers_only_when_it_must),
		cmocka_unit_test(bf16_is_rounded_and_run_as_such),
		cmocka_unit_test(damaged_scales_are_named),
		cmocka_unit_test(what_is_no_use_is_refused),
	};
	program_is(argc > 1 ? argv[1] : "winnow-prune");
	return cmocka_run_group_tests(tests, make_work, remove_work);
}
