/* compress_config.c: see compress_config.h. The table is the reference: key, default, range, meaning. */
#include "prune/compress/compress_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/engine.h"
#include "prune/shared_keys.h"

static const char *const TRAINING_PRECISIONS[] = {"f32", "bf16", NULL};
static const char *const DTYPE_NAMES[] = {"f32", "f16", "bf16", NULL};
static const char *const START_NAMES[] = {"pruned", "scratch", NULL};
static const char *const CHOICE_NAMES[] = {"importance", "end", NULL}; /* block_choice */
static const char *const TARGET_KINDS[] = {"none", "parameters", "flops", "latency_ms", NULL};

/* clang-format off */
#define FINAL_KEYS(i, name) \
	CONFIG_INT(compress_config, final[i].num_hidden_layers, "final." name ".num_hidden_layers", "0", 0, MAX_BLOCKS, "blocks; 0 (here and below): the teacher's"), \
	CONFIG_INT(compress_config, final[i].hidden_size, "final." name ".hidden_size", "0", 0, 65536, "width of the residual stream"), \
	CONFIG_INT(compress_config, final[i].num_attention_heads, "final." name ".num_attention_heads", "0", 0, 256, "heads, of self- and cross-attention"), \
	CONFIG_INT(compress_config, final[i].head_dim, "final." name ".head_dim", "0", 0, 4096, "width of a head"), \
	CONFIG_INT(compress_config, final[i].intermediate_size, "final." name ".intermediate_size", "0", 0, 65536, "FFN width")

#define LIMIT_KEYS(i, name) \
	CONFIG_INT(compress_config, limits.min_blocks[i], "limits." name ".blocks", "1", 1, MAX_BLOCKS, "at least so many blocks"), \
	CONFIG_INT(compress_config, limits.min_hidden[i], "limits." name ".hidden_size", "0", 0, 65536, "at least so wide; 0 (here and below): an eighth of the teacher's"), \
	CONFIG_INT(compress_config, limits.min_ffn[i], "limits." name ".intermediate_size", "0", 0, 65536, "FFN width"), \
	CONFIG_INT(compress_config, limits.min_inner[i], "limits." name ".attention", "0", 0, 65536, "heads * head_dim")

static const config_key KEYS[] = {
	CONFIG_STRING(compress_config, name, "name", "ad-audit", "the student's name in winnow.json"),
	CONFIG_STRING(compress_config, run_dir, "run_dir", NULL, "where checkpoints, logs and caches go"),
	CONFIG_STRING(compress_config, teacher, "teacher", NULL, "model directory with winnow.json"),
	CONFIG_INT64(compress_config, seed, "seed", "1", 0, 9e15, "recombinations, order of samples, augmentation, random importance"),
	CONFIG_INT(compress_config, threads, "threads", "0", 0, 256, "0: as many as this process may use (affinity, cgroup quota)"),
	CONFIG_ENUM(compress_config, precision, "precision", "bf16", TRAINING_PRECISIONS, "of matrix products while distilling; f32 where the CPU lacks bf16 instructions"),
	CONFIG_ENUM(compress_config, start, "start", "pruned", START_NAMES, "scratch: random weights of the final shape, one stage of distillation (a baseline)"),
	CONFIG_SECTION("data", "an imagefolder: DIR/SPLIT/metadata.jsonl and images"),
	CONFIG_STRING(compress_config, data_dir, "data.dir", NULL, "directory of the splits"),
	CONFIG_STRING(compress_config, split, "data.split", "train", "labelled ads to distil on"),
	CONFIG_INT64(compress_config, samples, "data.samples", "2000", 1, 1e9, "the first so many of them"),
	CONFIG_STRING(compress_config, validation, "data.validation", "validation", "split measured after every iteration"),
	CONFIG_STRING(compress_config, test, "data.test", "", "split measured once, at the end; empty: none"),
	CONFIG_INT64(compress_config, unlabelled_ads, "data.unlabelled_ads", "0", 0, 1e9, "so many behind them, each with its own words; their labels are not read"),
	CONFIG_INT64(compress_config, recombined, "data.recombined", "0", 0, 1e9, "further ads: the picture of one with the words of another; the teacher labels them"),
	CONFIG_STRING(compress_config, unlabelled_split, "data.unlabelled_split", "", "split whose pictures are used without labels; empty: none"),
	CONFIG_INT64(compress_config, unlabelled, "data.unlabelled", "0", 0, 1e9, "so many items with them, each with some ad's words; beyond the split's size pictures come again, with other words and in another view"),
	CONFIG_DOUBLE(compress_config, ads_share, "data.ads_share", "0.5", 0.01, 1, "ads as they are, of every batch, when there are recombined ads or further pictures"),
	CONFIG_STRING(compress_config, cache_dir, "data.cache", "", "decoded images; empty: run_dir/cache (share it between runs)"),
	CONFIG_DOUBLE(compress_config, cache_scale, "data.cache_scale", "1", 1, 4, "side of cached training images over image_size (above 1 for crops)"),
	CONFIG_SECTION("target", "what the student must fit; the planner chooses its shape"),
	CONFIG_ENUM(compress_config, target_kind, "target.kind", "none", TARGET_KINDS, "none: the shape is given by hand (final)"),
	CONFIG_DOUBLE(compress_config, target, "target.value", "0", 0, 1e15, "parameters, FLOPs of a request, or milliseconds of a request on this machine"),
	CONFIG_DOUBLE(compress_config, target_tolerance, "target.tolerance", "0.05", 0.001, 1, "of a latency"),
	CONFIG_INT(compress_config, request_tokens, "target.request_tokens", "64", 1, 8192, "text tokens of the request that is costed"),
	CONFIG_INT(compress_config, target_threads, "target.threads", "0", 0, 256, "that answer it; 0: as `threads`"),
	CONFIG_ENUM(compress_config, target_precision, "target.precision", "f32", PRECISION_NAMES, "that it is answered in"),
	CONFIG_SECTION("limits", "the planner's"),
	LIMIT_KEYS(COMPONENT_VISION, "vision"),
	LIMIT_KEYS(COMPONENT_QFORMER, "qformer"),
	LIMIT_KEYS(COMPONENT_TEXT, "text"),
	CONFIG_INT(compress_config, limits.min_queries, "limits.queries", "2", 1, 4096, "at least so many query tokens"),
	CONFIG_BOOL(compress_config, limits.uniform_heads, "limits.uniform_heads", "true", "heads * head_dim == hidden_size at the end, as transformers needs"),
	CONFIG_SECTION("final", "the shape by hand, with target.kind none"),
	FINAL_KEYS(COMPONENT_VISION, "vision"),
	FINAL_KEYS(COMPONENT_QFORMER, "qformer"),
	FINAL_KEYS(COMPONENT_TEXT, "text"),
	CONFIG_INT(compress_config, final_queries, "final.num_query_tokens", "0", 0, 4096, "query tokens"),
	CONFIG_STRING_LIST(compress_config, stages, "stages", "[blocks+queries | iterations 3 | steps 300, inner | iterations 3 | steps 300, hidden | iterations 3 | steps 300]", "in order: kinds (blocks, inner, hidden, queries, joined by +) [components joined by +] | iterations N | steps of distillation after each"),
	CONFIG_INT(compress_config, width_multiple, "width_multiple", "8", 1, 256, "widths on the way are rounded to it"),
	CONFIG_SECTION("importance", "what is kept"),
	CONFIG_ENUM(compress_config, importance, "importance.method", "taylor", IMPORTANCE_NAMES, "taylor: first-order change of the loss, as in the paper"),
	CONFIG_INT(compress_config, importance_batches, "importance.batches", "16", 1, 100000, "calibration batches before every iteration"),
	CONFIG_ENUM(compress_config, block_choice, "importance.blocks", "importance", CHOICE_NAMES, "which blocks go: the least important, or the last"),
	CONFIG_SECTION("distill", "after every iteration"),
	CONFIG_INT(compress_config, batch_size, "distill.batch_size", "32", 1, 65536, "samples a step"),
	CONFIG_INT(compress_config, micro_batch, "distill.micro_batch", "0", 0, 4096, "samples a forward; 0: the whole batch"),
	CONFIG_DOUBLE(compress_config, learning_rate, "distill.learning_rate", "1e-3", 0, 10, "peak in each iteration"),
	CONFIG_DOUBLE(compress_config, min_learning_rate, "distill.min_learning_rate", "1e-4", 0, 10, "floor of its cosine"),
	CONFIG_INT64(compress_config, warmup_steps, "distill.warmup_steps", "50", 0, 1e9, "linear warm-up of each iteration"),
	CONFIG_INT64(compress_config, finish_steps, "distill.finish_steps", "1000", 0, 1e9, "steps at the final shape, behind the last iteration's own"),
	CONFIG_DOUBLE(compress_config, finish_learning_rate, "distill.finish_learning_rate", "1e-3", 0, 10, "their peak; the floor is 0"),
	CONFIG_INT64(compress_config, teacher_cache_mb, "distill.teacher_cache_mb", "4096", 0, 1e9, "largest file of teacher outputs, in 2^20 bytes; beyond it (or with augmentation) the teacher runs along"),
	CONFIG_SECTION("loss", "weights of its terms; 0: off"),
	CONFIG_DOUBLE(compress_config, loss.nll, "loss.nll", "0.5", 0, 1e6, "label-sequence negative log-likelihood"),
	CONFIG_DOUBLE(compress_config, loss.kl, "loss.kl", "1", 0, 1e6, "softened token distributions of the teacher"),
	CONFIG_DOUBLE(compress_config, loss.pair, "loss.pair", "1", 0, 1e6, "the teacher's order and margins between candidate answers"),
	CONFIG_DOUBLE(compress_config, loss.relation, "loss.relation", "1", 0, 1e6, "which samples of a batch are alike"),
	CONFIG_DOUBLE(compress_config, loss.hidden, "loss.hidden", "8", 0, 1e6, "kept blocks' outputs"),
	CONFIG_DOUBLE(compress_config, finish_hidden, "loss.finish_hidden", "8", 0, 1e6, "kept blocks' outputs, in the finishing steps"),
	CONFIG_DOUBLE(compress_config, loss.temperature, "loss.temperature", "2", 0.01, 100, "of kl"),
	CONFIG_DOUBLE(compress_config, loss.margin, "loss.margin", "2", 0.01, 100, "of pair and relation, in nats"),
	OPTIMIZER_KEYS(compress_config, "0.98", "0.01"),
	AUGMENT_KEYS(compress_config, "1", "1", "0", "0", "0"),
	CONFIG_INT(compress_config, views, "augment.views", "0", 0, 64, "so many of every ad's picture (the first as it is) and one of every other, drawn once: the teacher's outputs can be cached; 0: drawn anew in every step, and the teacher runs along"),
	CONFIG_SECTION("eval", "validation"),
	CONFIG_INT64(compress_config, eval_every, "eval.every", "0", 0, 1e9, "steps inside an iteration; 0: at its end only"),
	CONFIG_INT(compress_config, eval_batch, "eval.batch", "32", 1, 256, "samples a forward"),
	CONFIG_INT(compress_config, latency_runs, "eval.latency_runs", "50", 0, 100000, "timed requests of every iteration's shape; 0: not timed"),
	CONFIG_INT64(compress_config, checkpoint_every, "checkpoint_every", "250", 1, 1e9, "steps between resumable checkpoints"),
	CONFIG_DURATION(compress_config, log_every_ns, "log_every", "15s", 0.1, 86400, "between progress lines when stderr is not a terminal"),
	CONFIG_SECTION("export", "the finished student"),
	CONFIG_STRING(compress_config, export_dir, "export.dir", "", "empty: run_dir/export"),
	CONFIG_ENUM(compress_config, export_dtype, "export.dtype", "f32", DTYPE_NAMES, "stored precision"),
};
/* clang-format on */
const config_schema COMPRESS_CONFIG_SCHEMA = CONFIG_SCHEMA(compress_config, KEYS);

const char *const COMPRESS_FIXED_KEYS[] = {"final.", "limits.", "target.", "width_multiple", "stages", "distill.finish_steps",
					   "importance.", "precision", "start", "seed", "data.split", "data.validation",
					   "data.unlabelled_ads", "augment.views", "data.recombined", "data.unlabelled", "distill.batch_size", NULL};

/* The planner's shape and one by hand exclude each other. */
static wn_code check_final(const compress_config *c, wn_error *err)
{
	for (size_t i = 0; c->target_kind && i < COMPRESS_CONFIG_SCHEMA.count; i++) {
		const config_key *k = &KEYS[i];
		if (k->type != CONFIG_TYPE_INT || strncmp(k->path, "final.", strlen("final.")) != 0)
			continue;
		const int found = *(const int *)(const void *)((const char *)c + k->offset);
		if (found)
			return wn_fail(err, WN_INVALID, "%s: found %d, expected nothing: with target.kind %s the planner chooses the shape", k->path,
				       found, TARGET_KINDS[c->target_kind]);
	}
	return WN_OK;
}

static wn_code check(const void *config, wn_error *err)
{
	const compress_config *c = config;
	stage s;
	if (c->stages.count > MAX_STAGES)
		return wn_fail(err, WN_INVALID, "stages: found %zu, expected at most %d", c->stages.count, MAX_STAGES);
	for (size_t i = 0; i < c->stages.count; i++)
		if (stage_parse(&s, c->stages.items[i], err))
			return wn_fail_prefix(err, "stages");
	if (c->stages.count == 0 && c->start == START_PRUNED)
		return wn_fail(err, WN_INVALID, "stages: empty, expected at least one");
	if (c->stages.count == 0 && c->finish_steps == 0)
		return wn_fail(err, WN_INVALID, "distill.finish_steps: found 0, expected steps where there are no stages");
	if (c->target_kind && c->target <= 0)
		return wn_fail(err, WN_INVALID, "target.value: found %g, expected more than 0 for target.kind %s", c->target,
			       TARGET_KINDS[c->target_kind]);
	if (c->micro_batch > c->batch_size)
		return wn_fail(err, WN_INVALID, "distill.micro_batch: found %d, expected at most distill.batch_size = %d", c->micro_batch,
			       c->batch_size);
	if (c->min_learning_rate > c->learning_rate)
		return wn_fail(err, WN_INVALID, "distill.min_learning_rate: found %g, expected at most distill.learning_rate = %g",
			       c->min_learning_rate, c->learning_rate);
	if (!(c->loss.nll + c->loss.kl + c->loss.pair + c->loss.relation > 0))
		return wn_fail(err, WN_INVALID, "loss: nll, kl, pair and relation are all 0: nothing says what to answer");
	if (c->unlabelled > 0 && !*c->unlabelled_split)
		return wn_fail(err, WN_INVALID, "data.unlabelled: found %lld, but data.unlabelled_split is empty", (long long)c->unlabelled);
	if (c->views > 0 && !augment_changes(&c->augment))
		return wn_fail(err, WN_INVALID, "augment.views: found %d, but nothing in augment changes a picture", c->views);
	return check_final(c, err);
}

wn_code compress_config_load(compress_config *out, const char *path, const char *const *sets, int num_sets, wn_error *err)
{
	return config_load_with(&COMPRESS_CONFIG_SCHEMA, out, path, sets, num_sets, check, err);
}

void compress_config_free(compress_config *c) { config_free(&COMPRESS_CONFIG_SCHEMA, c); }

int compress_config_stages(const compress_config *c, stage *out)
{
	int n = 0;
	for (size_t i = 0; i < c->stages.count && n < MAX_STAGES; i++)
		n += stage_parse(&out[n], c->stages.items[i], NULL) == WN_OK;
	return n;
}

static void set_if(int *to, int value)
{
	if (value)
		*to = value;
}

static void set_stack(stack_config *s, const final_shape *f)
{
	set_if(&s->num_hidden_layers, f->num_hidden_layers);
	set_if(&s->hidden_size, f->hidden_size);
	for (int i = 0; i < s->num_hidden_layers; i++) {
		block_widths *w = &s->blocks[i];
		set_if(&w->num_heads, f->num_attention_heads);
		set_if(&w->head_dim, f->head_dim);
		set_if(&w->ffn_dim, f->intermediate_size);
		if (w->cross_num_heads) {
			set_if(&w->cross_num_heads, f->num_attention_heads);
			set_if(&w->cross_head_dim, f->head_dim);
		}
	}
}

wn_code compress_config_shape(const compress_config *c, const blip2_config *teacher, blip2_config *out, wn_error *err)
{
	*out = *teacher;
	for (int i = 0; i < NUM_COMPONENTS; i++) {
		const int blocks = shape_stack(teacher, (component)i)->num_hidden_layers;
		if (c->final[i].num_hidden_layers > blocks)
			return wn_fail(err, WN_INVALID, "final.%s.num_hidden_layers: found %d, the teacher has %d",
				       shape_stack_name((component)i), c->final[i].num_hidden_layers, blocks);
		set_stack(shape_stack_in(out, (component)i), &c->final[i]);
	}
	set_if(&out->num_query_tokens, c->final_queries);
	return WN_OK;
}
