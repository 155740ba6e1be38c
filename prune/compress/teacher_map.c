/* teacher_map.c: see teacher_map.h. */
#include "prune/compress/teacher_map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "prune/compress/json_lists.h"
#include "prune/compress/keep.h"

static void set_sizes(teacher_map *m, const blip2_config *student)
{
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		m->num_blocks[c] = shape_stack(student, (component)c)->num_hidden_layers;
		m->hidden_size[c] = shape_stack(student, (component)c)->hidden_size;
	}
	m->num_queries = student->num_query_tokens;
}

static wn_code open_map(teacher_map *m, const blip2_config *student, wn_error *err)
{
	memset(m, 0, sizeof *m);
	set_sizes(m, student);
	bool ok = (m->queries = calloc((size_t)m->num_queries, sizeof *m->queries));
	for (int c = 0; c < NUM_COMPONENTS; c++)
		ok = (m->hidden[c] = calloc((size_t)m->hidden_size[c], sizeof *m->hidden[c])) && ok;
	if (ok)
		return WN_OK;
	teacher_map_close(m);
	return wn_fail(err, WN_NOMEM, "no memory for a student's places in its teacher");
}

void teacher_map_close(teacher_map *m)
{
	for (int c = 0; c < NUM_COMPONENTS; c++)
		free(m->hidden[c]);
	free(m->queries);
	memset(m, 0, sizeof *m);
}

static void count_up(int *out, int count)
{
	for (int i = 0; i < count; i++)
		out[i] = i;
}

wn_code teacher_map_identity(teacher_map *out, const blip2_config *teacher, wn_error *err)
{
	wn_code rc = open_map(out, teacher, err);
	if (rc)
		return rc;
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		count_up(out->blocks[c], out->num_blocks[c]);
		count_up(out->hidden[c], out->hidden_size[c]);
	}
	count_up(out->queries, out->num_queries);
	return WN_OK;
}

/* Kept indices ascend, so that none is read after it was written: the lists shrink where they stand. */
static void compact(int *map, const int *kept, int count)
{
	for (int i = 0; i < count; i++)
		map[i] = map[kept[i]];
}

void teacher_map_apply(teacher_map *m, const keep *k)
{
	set_sizes(m, &k->to);
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		for (int i = 0; i < m->num_blocks[c]; i++)
			m->blocks[c][i] = m->blocks[c][k->blocks[c][i].source];
		compact(m->hidden[c], k->hidden[c], m->hidden_size[c]);
	}
	compact(m->queries, k->queries, m->num_queries);
}

json_t *teacher_map_json(const teacher_map *m)
{
	json_t *j = json_object();
	int failed = 0;
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		json_t *one = json_object();
		failed |= json_object_set_new(one, "blocks", json_ints(m->blocks[c], (size_t)m->num_blocks[c]));
		failed |= json_object_set_new(one, "hidden", json_ints(m->hidden[c], (size_t)m->hidden_size[c]));
		failed |= json_object_set_new(j, shape_stack_name((component)c), one);
	}
	failed |= json_object_set_new(j, "queries", json_ints(m->queries, (size_t)m->num_queries));
	return json_done(j, failed);
}

/* `count` ascending integers below `limit` out of a list. */
static wn_code parse_list(int *out, const json_t *list, const char *where, const char *key, int count, int limit, wn_error *err)
{
	if (!json_is_array(list) || json_array_size(list) != (size_t)count)
		return wn_fail(err, WN_INVALID, "teacher map: %s%s: found %zu numbers, expected the student's %d", where, key,
		               json_array_size(list), count);
	for (int i = 0; i < count; i++) {
		const json_t *v = json_array_get(list, (size_t)i);
		const json_int_t least = i ? out[i - 1] + 1 : 0, found = json_integer_value(v);
		if (!json_is_integer(v) || found < least || found >= limit)
			return wn_fail(err, WN_INVALID,
			               "teacher map: %s%s[%d]: found %" JSON_INTEGER_FORMAT
			               ", expected an integer from %" JSON_INTEGER_FORMAT " to %d",
			               where, key, i, found, least, limit - 1);
		out[i] = (int)found;
	}
	return WN_OK;
}

wn_code teacher_map_parse(teacher_map *out, const json_t *j, const blip2_config *teacher, const blip2_config *student,
                          wn_error *err)
{
	wn_code rc = open_map(out, student, err);
	if (rc)
		return rc;
	for (int c = 0; c < NUM_COMPONENTS && rc == WN_OK; c++) {
		const stack_config *from = shape_stack(teacher, (component)c);
		const json_t *one = json_object_get(j, shape_stack_name((component)c));
		char where[16];
		snprintf(where, sizeof where, "%s.", shape_stack_name((component)c));
		rc = parse_list(out->blocks[c], json_object_get(one, "blocks"), where, "blocks", out->num_blocks[c],
		                from->num_hidden_layers, err);
		if (rc == WN_OK)
			rc = parse_list(out->hidden[c], json_object_get(one, "hidden"), where, "hidden", out->hidden_size[c],
			                from->hidden_size, err);
	}
	if (rc == WN_OK)
		rc = parse_list(out->queries, json_object_get(j, "queries"), "", "queries", out->num_queries,
		                teacher->num_query_tokens, err);
	if (rc)
		teacher_map_close(out);
	return rc;
}
