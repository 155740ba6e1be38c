/* manager_tells.h: what the manager tells of its models: a version's row in the index, a number in the metrics. */
#ifndef WINNOW_TESTS_MANAGER_TELLS_H
#define WINNOW_TESTS_MANAGER_TELLS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "in_process.h"

/* State and reason of a version, as the index tells; "" for one that it does not name. */
static void look(in_process *server, const char *version, char state[32], char why[480])
{
	size_t i;
	json_t *v, *list = manager_index(in_process_manager(server), false);
	*state = *why = 0;
	json_array_foreach(list, i, v)
	{
		if (strcmp(json_string_value(json_object_get(v, "version")), version) != 0)
			continue;
		snprintf(state, 32, "%s", json_string_value(json_object_get(v, "state")));
		snprintf(why, 480, "%s", json_string_value(json_object_get(v, "reason")));
	}
	json_decref(list);
}

/* The metric of this name and labels; -1: there is none. */
static double gauge(in_process *server, const char *name)
{
	char *text = NULL, line[120];
	size_t len;
	FILE *f = open_memstream(&text, &len);
	manager_metrics(in_process_manager(server), f);
	fclose(f);
	snprintf(line, sizeof line, "\n%s ", name);
	const char *at = strstr(text, line);
	const double value = at ? strtod(at + strlen(line), NULL) : -1;
	free(text);
	return value;
}

#endif
