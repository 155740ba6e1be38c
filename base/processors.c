/* processors.c: see processors.h.
 *
 * Where a group's files are: /proc/self/cgroup has the group's path as its hierarchy counts it, /proc/self/mountinfo which part
 * of the hierarchy is mounted and where. In a container the two may speak of different roots; then the mount itself is the
 * group. */
#include "base/processors.h"

#include <limits.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the mask ---- */

#define MASK_BITS ((int)(8 * sizeof(unsigned long)))

static bool may_run_on(const processors *p, int cpu) { return p->allowed[cpu / MASK_BITS] >> (cpu % MASK_BITS) & 1; }

static void look_at_mask(processors *p)
{
	/* A cpu_set_t holds 1024 of them; the call takes any size. */
	if (sched_getaffinity(0, sizeof p->allowed, (cpu_set_t *)(void *)p->allowed) != 0)
		p->allowed[0] = 1;
	for (int i = 0; i < PROCESSORS_MOST; i++)
		p->affinity += may_run_on(p, i);
}

int processors_nth(const processors *p, int n)
{
	for (int i = 0; i < PROCESSORS_MOST; i++)
		if (may_run_on(p, i) && n-- == 0)
			return i;
	return -1;
}

void processors_pin(int processor)
{
	processors one = {0};
	if (processor < 0 || processor >= PROCESSORS_MOST)
		return;
	one.allowed[processor / MASK_BITS] = 1ul << (processor % MASK_BITS);
	processors_unpin(&one);
}

void processors_unpin(const processors *p)
{
	(void)sched_setaffinity(0, sizeof p->allowed, (const cpu_set_t *)(const void *)p->allowed);
}

/* ---- cgroups ---- */

typedef struct quota {
	const char *root;
	double processors;  /* the smallest so far, 0: none */
	char file[PATH_MAX]; /* where it stands, without root */
} quota;

static FILE *open_below(const char *root, const char *path)
{
	char whole[PATH_MAX];
	return snprintf(whole, sizeof whole, "%s%s", root, path) < (int)sizeof whole ? fopen(whole, "re") : NULL;
}

/* The first line's first two numbers; how many there were ("max 100000" has none). */
static int read_numbers(const char *root, const char *dir, const char *name, char path[PATH_MAX], double number[2])
{
	if (snprintf(path, PATH_MAX, "%s/%s", strcmp(dir, "/") ? dir : "", name) >= PATH_MAX)
		return 0;
	FILE *f = open_below(root, path);
	int n = f ? fscanf(f, "%lf %lf", &number[0], &number[1]) : 0;
	if (f)
		fclose(f);
	return n;
}

static void take_group(quota *q, const char *dir, bool v2)
{
	char path[PATH_MAX], unused[PATH_MAX];
	double number[2] = {0}, period[2] = {0};
	if (v2 && read_numbers(q->root, dir, "cpu.max", path, number) < 2)
		return;
	if (!v2 && (read_numbers(q->root, dir, "cpu.cfs_quota_us", path, number) < 1 ||
		    read_numbers(q->root, dir, "cpu.cfs_period_us", unused, period) < 1))
		return;
	const double found = number[0] / (v2 ? number[1] : period[0]);
	if (!(found > 0) || !isfinite(found) || (q->processors > 0 && found >= q->processors)) /* v1 has -1 for none */
		return;
	q->processors = found;
	memcpy(q->file, path, sizeof path);
}

/* One hierarchy: `path` of the group and what of it is mounted at `mount`. */
static void take_hierarchy(quota *q, const char *path, const char *mounted, const char *mount, bool v2)
{
	char dir[PATH_MAX];
	const size_t skip = strcmp(mounted, "/") ? strlen(mounted) : 0, top = strcmp(mount, "/") ? strlen(mount) : 0;
	const bool inside = !strncmp(path, mounted, skip) && (!path[skip] || path[skip] == '/') && !strstr(path, "/..");
	if (snprintf(dir, sizeof dir, "%s%s", top ? mount : "", inside ? path + skip : "") >= (int)sizeof dir)
		return;
	for (;;) {
		take_group(q, *dir ? dir : "/", v2);
		char *slash = strrchr(dir, '/');
		if (strlen(dir) <= top || !slash)
			return;
		*slash = 0;
	}
}

/* A word in a list "a,b,c". */
static bool lists(const char *list, const char *word)
{
	for (const size_t n = strlen(word);; list++) {
		if (!strncmp(list, word, n) && (!list[n] || list[n] == ','))
			return true;
		if (!(list = strchr(list, ',')))
			return false;
	}
}

/* The kernel writes spaces and the like in paths as \040. */
static void unescape(char *s)
{
	char *out = s;
	for (; *s; s++)
		if (s[0] == '\\' && s[1] && s[2] && s[3]) {
			*out++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			*out++ = *s;
		}
	*out = 0;
}

/* "36 35 98:0 /mounted /mount options optional… - type source options" into its parts; cuts the line. */
static bool split_mount(char *line, char **mounted, char **mount, char **type, char **options)
{
	char *rest = NULL, *dash = strstr(line, " - ");
	if (!dash)
		return false;
	*dash = 0;
	char *field = strtok_r(line, " ", &rest);
	for (int i = 0; field && i < 3; i++)
		field = strtok_r(NULL, " ", &rest);
	*mounted = field;
	*mount = field ? strtok_r(NULL, " ", &rest) : NULL;
	*type = strtok_r(dash + 3, " \n", &rest);
	char *source = *type ? strtok_r(NULL, " \n", &rest) : NULL;
	*options = source ? strtok_r(NULL, " \n", &rest) : NULL;
	if (!*mount || !*options)
		return false;
	unescape(*mounted);
	unescape(*mount);
	return true;
}

/* The hierarchy of `path` wherever it is mounted. */
static void take_mounts(quota *q, const char *path, bool v2)
{
	char *line = NULL, *mounted, *mount, *type, *options;
	size_t size = 0;
	FILE *f = open_below(q->root, "/proc/self/mountinfo");
	while (f && getline(&line, &size, f) > 0)
		if (split_mount(line, &mounted, &mount, &type, &options) &&
		    (v2 ? !strcmp(type, "cgroup2") : !strcmp(type, "cgroup") && lists(options, "cpu")))
			take_hierarchy(q, path, mounted, mount, v2);
	free(line);
	if (f)
		fclose(f);
}

/* "0::/path" is v2's group, "4:cpu,cpuacct:/path" one of v1. */
static void look_at_cgroups(quota *q)
{
	char *line = NULL;
	size_t size = 0;
	FILE *f = open_below(q->root, "/proc/self/cgroup");
	while (f && getline(&line, &size, f) > 0) {
		char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
		if (!path)
			continue;
		*path++ = 0;
		path[strcspn(path, "\n")] = 0;
		const bool v2 = !strcmp(controllers, ":") && line[0] == '0';
		if (v2 || lists(controllers + 1, "cpu"))
			take_mounts(q, path, v2);
	}
	free(line);
	if (f)
		fclose(f);
}

/* ---- together ---- */

void processors_judge(processors *p, int online, const char *source)
{
	const double whole = p->quota > 0 ? ceil(p->quota - 1e-6) : p->affinity;
	const bool by_quota = whole < p->affinity;
	p->usable = !by_quota ? p->affinity : whole < 1 ? 1 : (int)whole;
	int n = snprintf(p->reason, sizeof p->reason, "%d of %d processors", p->usable, online);
	if (by_quota)
		snprintf(p->reason + n, sizeof p->reason - (size_t)n, ": cgroup quota %.4g (%.160s)", p->quota, source);
	else if (p->affinity < online)
		snprintf(p->reason + n, sizeof p->reason - (size_t)n, ": affinity mask");
}

void processors_look(processors *out, const char *root)
{
	quota q = {.root = root ? root : ""};
	const long online = sysconf(_SC_NPROCESSORS_ONLN);
	*out = (processors){0};
	look_at_mask(out);
	look_at_cgroups(&q);
	out->quota = q.processors;
	processors_judge(out, online > out->affinity ? (int)online : out->affinity, q.file);
}

int processors_usable(void)
{
	processors p;
	processors_look(&p, NULL);
	return p.usable;
}
