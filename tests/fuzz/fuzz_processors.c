/* What Linux says of control groups and mounts, below a directory that stands for the root: whatever it says, a process may use at least
 * one processor and no more than its mask has, and a quota has a reason. */
#include <math.h>

#include "base/processors.h"
#include "fuzz_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const NAMES[] = {
    "proc/self/cgroup", "proc/self/mountinfo", "sys/fs/cgroup/cpu.max", "sys/fs/cgroup/a/cpu.max", "sys/fs/cgroup/a/b/cpu.max",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "sys/fs/cgroup/cpu/cpu.cfs_period_us", "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us",
    "sys/fs/cgroup/cpu/a/cpu.cfs_period_us", NULL};

static void make_directories(void)
{
	static const char *const DIRECTORIES[] = {"proc", "proc/self", "sys", "sys/fs", "sys/fs/cgroup", "sys/fs/cgroup/a", "sys/fs/cgroup/a/b",
						  "sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu/a"};
	static bool made;
	char path[256];
	for (size_t i = 0; !made && i < sizeof DIRECTORIES / sizeof DIRECTORIES[0]; i++) {
		snprintf(path, sizeof path, "%s/%s", fuzz_dir(), DIRECTORIES[i]);
		if (mkdir(path, 0700) != 0)
			abort();
	}
	made = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	processors p;
	make_directories();
	fuzz_bundle(data, size, NAMES);
	processors_look(&p, fuzz_dir());
	if (p.affinity < 1 || p.usable < 1 || p.usable > p.affinity || !(p.quota >= 0) || !isfinite(p.quota))
		abort();
	if (strlen(p.reason) >= sizeof p.reason || !strstr(p.reason, " processors"))
		abort();
	if (p.usable < p.affinity && (p.quota <= 0 || !strstr(p.reason, "cgroup quota")))
		abort();
	return 0;
}
