/* cut.c: see cut.h. */
#include "prune/compress/cut.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json_text.h"
#include "prune/compress/compress_log.h"
#include "prune/compress/distiller.h"
#include "prune/compress/keep_json.h"
#include "prune/compress/slice.h"
#include "prune/run_dir.h"

#define MAX_PRUNING_BYTES ((size_t)1 << 30)
#define PRUNING           ".pruning.json"

/* ---- pruning.json ---- */

static wn_code read_pruning(json_t **out, const compress_plan *p, const workspace *w, int index, char path[PATH_MAX], wn_error *err)
{
	char *text = NULL;
	size_t len = 0;
	json_error_t je;
	*out = NULL;
	wn_code rc = compress_plan_path(p, w, index, PRUNING, path, err);
	if (!rc)
		rc = file_read(path, MAX_PRUNING_BYTES, &text, &len, err);
	if (!rc && !(*out = json_read(text, len, JSON_REJECT_DUPLICATES, &je)))
		rc = wn_fail(err, json_read_code(&je), "%s: %s", path, je.text);
	free(text);
	return rc;
}

/* Takes the reference; NULL: no memory. */
static wn_code write_pruning(json_t *j, const compress_plan *p, const workspace *w, int index, wn_error *err)
{
	char path[PATH_MAX], dir[PATH_MAX];
	char *text = j ? json_write(j, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
	json_decref(j);
	wn_code rc = text ? run_dir_path(w->config->run_dir, "iterations", dir, err) : wn_fail(err, WN_NOMEM, "no memory for pruning.json");
	if (!rc)
		rc = run_dir_make(dir, err);
	if (!rc)
		rc = compress_plan_path(p, w, index, PRUNING, path, err);
	if (!rc)
		rc = file_write_atomic(path, text, strlen(text), err);
	free(text);
	return rc;
}

static wn_code parse_map(teacher_map *out, const json_t *pruning, const workspace *w, const blip2 *student, wn_error *err)
{
	return teacher_map_parse(out, json_object_get(pruning, "teacher_map"), blip2_get_config(w->teacher.model), blip2_get_config(student),
				 err);
}

/* ---- where it is cut from ---- */

/* The model of the iteration before; the teacher's own before the first. */
typedef struct source {
	checkpoint ck; /* zeroed: the teacher */
	blip2 *model;
	teacher_map map;
} source;

static wn_code open_source(source *s, const workspace *w, const compress_plan *p, int index, wn_error *err)
{
	const checkpoint_options o = {.skip_digest = true};
	char path[PATH_MAX];
	json_t *pruning = NULL;
	*s = (source){.model = w->teacher.model};
	if (index == 0)
		return teacher_map_identity(&s->map, blip2_get_config(s->model), err);
	wn_code rc = compress_plan_path(p, w, index - 1, "", path, err);
	if (!rc)
		rc = checkpoint_load(&s->ck, path, &o, err);
	if (!rc) {
		s->model = s->ck.model;
		rc = read_pruning(&pruning, p, w, index - 1, path, err);
	}
	if (!rc && (rc = parse_map(&s->map, pruning, w, s->model, err)))
		wn_fail_prefix(err, "%s", path);
	json_decref(pruning);
	return rc;
}

static void close_source(source *s)
{
	checkpoint_close(&s->ck);
	teacher_map_close(&s->map);
}

/* ---- making one ---- */

static wn_code score(structure_scores *out, const workspace *w, blip2 *m, wn_error *err)
{
	const compress_config *c = w->config;
	distiller *d = NULL;
	wn_code rc = structure_scores_open(out, blip2_get_config(m), err);
	if (!rc)
		rc = distiller_open_scores(&d, w, m, (importance_method)c->importance, err);
	if (!rc)
		rc = distiller_score(d, c->importance_batches, out, err);
	distiller_close(&d);
	return rc;
}

static json_t *lost_json(const keep *k, const structure_scores *s)
{
	return json_pack("{s:o, s:o, s:o}", "vision", json_number(keep_score_lost(k, s, COMPONENT_VISION)), "qformer",
			 json_number(keep_score_lost(k, s, COMPONENT_QFORMER)), "text", json_number(keep_score_lost(k, s, COMPONENT_TEXT)));
}

/* Scores the source, and slices it to the iteration's shape. *pruning: what is to be remembered. */
static wn_code slice(cut *c, source *from, const workspace *w, const blip2_config *shape, json_t **pruning, wn_error *err)
{
	const compress_config *cc = w->config;
	structure_scores s = {0};
	keep k = {0};
	wn_code rc = score(&s, w, from->model, err);
	if (!rc)
		rc = keep_choose(&k, &s, shape, (block_choice)cc->block_choice, err);
	if (!rc)
		rc = slice_model(&c->student, from->model, &k, err);
	if (!rc) {
		c->map = from->map;
		from->map = (teacher_map){0};
		teacher_map_apply(&c->map, &k);
		if (!(c->score_lost = lost_json(&k, &s)))
			rc = wn_fail(err, WN_NOMEM, "no memory for pruning.json");
	}
	if (!rc)
		*pruning = json_pack("{s:s, s:o, s:O, s:o, s:o}", "importance", IMPORTANCE_NAMES[cc->importance], "scores",
				     structure_scores_json(&s), "score_lost", c->score_lost, "keep", keep_json(&k), "teacher_map",
				     teacher_map_json(&c->map));
	keep_close(&k);
	structure_scores_close(&s);
	return rc;
}

static void take_over(cut *c, source *from)
{
	c->student = from->ck.model;
	from->ck.model = NULL;
	c->map = from->map;
	from->map = (teacher_map){0};
}

static wn_code make(cut *c, source *from, const workspace *w, const compress_plan *p, int index, wn_error *err)
{
	const iteration *it = &p->iterations[index];
	json_t *pruning = NULL;
	wn_code rc = WN_OK;
	if (it->stage == PLAN_FINISH) {
		take_over(c, from);
		pruning = json_pack("{s:o}", "teacher_map", teacher_map_json(&c->map));
	} else {
		rc = slice(c, from, w, &it->shape, &pruning, err);
	}
	return rc ? rc : write_pruning(pruning, p, w, index, err);
}

/* ---- the same again ---- */

static wn_code restore(cut *c, source *from, const workspace *w, const compress_plan *p, int index, wn_error *err)
{
	const iteration *it = &p->iterations[index];
	char path[PATH_MAX];
	json_t *pruning;
	keep k = {0};
	wn_code rc = read_pruning(&pruning, p, w, index, path, err);
	if (rc)
		return rc;
	if (it->stage == PLAN_FINISH) {
		take_over(c, from);
	} else {
		if ((rc = keep_parse(&k, json_object_get(pruning, "keep"), blip2_get_config(from->model), &it->shape, err)))
			wn_fail_prefix(err, "%s: keep", path);
		if (!rc)
			rc = slice_model(&c->student, from->model, &k, err);
		if (!rc && (rc = parse_map(&c->map, pruning, w, c->student, err)))
			wn_fail_prefix(err, "%s", path);
		c->score_lost = json_incref(json_object_get(pruning, "score_lost"));
	}
	keep_close(&k);
	json_decref(pruning);
	return rc;
}

/* ---- opening ---- */

static wn_code random_student(cut *c, const workspace *w, const blip2_config *shape, wn_error *err)
{
	wn_code rc = blip2_create(&c->student, shape, err);
	if (!rc)
		blip2_init_weights(c->student, (uint64_t)w->config->seed);
	return rc;
}

wn_code cut_open(cut *out, const workspace *w, const compress_plan *p, int index, bool resume, wn_error *err)
{
	source from = {0};
	*out = (cut){0};
	if (w->config->start == START_SCRATCH)
		return random_student(out, w, &p->iterations[index].shape, err);
	wn_code rc = open_source(&from, w, p, index, err);
	if (!rc)
		rc = resume ? restore(out, &from, w, p, index, err) : make(out, &from, w, p, index, err);
	close_source(&from);
	if (rc)
		cut_close(out);
	return rc;
}

void cut_close(cut *c)
{
	blip2_close(&c->student);
	teacher_map_close(&c->map);
	json_decref(c->score_lost);
	*c = (cut){0};
}
