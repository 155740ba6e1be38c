/* Joules from the kernel's counters: which are counted, what happens at their end, and that half a machine is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/energy_meter.h"
#include "temp_dir.h"

/* A file of DIR under the root; NULL: none. */
static void put(const char *dir, const char *name, const char *text)
{
	char path[200];
	snprintf(path, sizeof path, "powercap/%s/%s", dir, name);
	unlink(temp_path(path));
	if (text)
		temp_file(path, text, strlen(text));
}

static void domain(const char *dir, const char *name, const char *uj, const char *range)
{
	char path[200];
	snprintf(path, sizeof path, "powercap/%s", dir);
	mkdir(temp_path(path), 0755);
	put(dir, "name", name);
	put(dir, "max_energy_range_uj", range);
	put(dir, "energy_uj", uj);
}

static void joules_come_from_the_counters(void **state)
{
	energy_meter m;
	double joules = -1;
	char root[200];
	strcpy(root, temp_path("powercap"));
	assert_false(energy_meter_open(&m, root)); /* no such machine */
	assert_int_equal(mkdir(root, 0755), 0);
	assert_false(energy_meter_open(&m, root)); /* no domain */
	domain("intel-rapl:0", "package-0\n", "1000000\n", "262143328850\n");
	domain("intel-rapl:0:0", "core\n", "900000\n", "262143328850\n");
	domain("intel-rapl:0:2", "dram\n", "5000000\n", "65712999613\n");
	domain("intel-rapl:1", "package-1\n", "262143000000\n", "262143328850\n");
	domain("intel-rapl:2", "psys\n", "77\n", "262143328850\n");
	domain("intel-rapl-mmio:0", "package-0\n", "1\n", "262143328850\n");
	assert_true(energy_meter_open(&m, root));
	assert_int_equal(m.count, 3);
	assert_true(energy_meter_read(&m, &joules));
	assert_true(joules == 0);
	domain("intel-rapl:0", "package-0\n", "3500000\n", "262143328850\n");  /* 2.5 J */
	domain("intel-rapl:0:2", "dram\n", "5250000\n", "65712999613\n");      /* 0.25 J */
	domain("intel-rapl:1", "package-1\n", "671150\n", "262143328850\n");   /* round its end: 1 J */
	domain("intel-rapl:2", "psys\n", "99999999\n", "262143328850\n");      /* holds the packages: not counted */
	assert_true(energy_meter_read(&m, &joules));
	assert_float_equal(joules, 3.75, 1e-6);
	domain("intel-rapl:0", "package-0\n", "3600000\n", "262143328850\n");
	assert_true(energy_meter_read(&m, &joules));
	assert_float_equal(joules, 3.85, 1e-6); /* they add up */
	domain("intel-rapl:1", "package-1\n", NULL, "262143328850\n");
	assert_false(energy_meter_read(&m, &joules));
	assert_false(energy_meter_open(&m, root)); /* half a machine is none */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(joules_come_from_the_counters),
	};
	return cmocka_run_group_tests(tests, temp_dir_make, temp_dir_remove);
}
