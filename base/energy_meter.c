/* energy_meter.c: see energy_meter.h. */
#include "base/energy_meter.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool read_text(const char *dir, const char *file, char *out, size_t size)
{
	char path[280];
	if (snprintf(path, sizeof path, "%s/%s", dir, file) >= (int)sizeof path)
		return false;
	FILE *f = fopen(path, "re");
	bool ok = f && fgets(out, (int)size, f);
	if (f)
		fclose(f);
	if (ok)
		out[strcspn(out, "\n")] = 0;
	return ok;
}

static bool read_counter(const char *dir, const char *file, uint64_t *out)
{
	char text[64];
	return read_text(dir, file, text, sizeof text) && sscanf(text, "%" SCNu64, out) == 1;
}

/* A package holds its cores and graphics; dram stands beside it. "psys" holds everything again and is not counted. */
static bool counts(const char *name) { return !strncmp(name, "package-", 8) || !strcmp(name, "dram"); }

bool energy_meter_open(energy_meter *m, const char *root)
{
	*m = (energy_meter){0};
	DIR *d = opendir(root ? root : (root = "/sys/class/powercap"));
	bool ok = d != NULL;
	for (struct dirent *e; ok && (e = readdir(d));) {
		char dir[256], name[64];
		if (e->d_name[0] == '.' || strncmp(e->d_name, "intel-rapl:", 11) != 0)
			continue; /* also leaves out intel-rapl-mmio, the same counters seen again */
		if (snprintf(dir, sizeof dir, "%s/%s", root, e->d_name) >= (int)sizeof dir || !read_text(dir, "name", name, sizeof name) ||
		    !counts(name))
			continue;
		energy_domain *domain = &m->domains[m->count];
		ok = m->count < ENERGY_MAX_DOMAINS && snprintf(domain->dir, sizeof domain->dir, "%s", dir) < (int)sizeof domain->dir &&
		     read_counter(dir, "energy_uj", &domain->last_uj) && read_counter(dir, "max_energy_range_uj", &domain->range_uj);
		m->count += ok;
	}
	if (d)
		closedir(d);
	return ok && m->count > 0;
}

bool energy_meter_read(energy_meter *m, double *joules)
{
	for (int i = 0; i < m->count; i++) {
		energy_domain *d = &m->domains[i];
		uint64_t now;
		if (!read_counter(d->dir, "energy_uj", &now))
			return false;
		m->joules += 1e-6 * (double)(now >= d->last_uj ? now - d->last_uj : d->range_uj - d->last_uj + now);
		d->last_uj = now;
	}
	*joules = m->joules;
	return true;
}
