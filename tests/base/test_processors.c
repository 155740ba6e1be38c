/* What a process may use of the machine: quotas in trees of control groups as distributions and containers have them, written into
 * a directory that stands for the root, and the affinity mask, which is the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>

#include "base/processors.h"
#include "temp_dir.h"

#define V2 "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
#define V1 "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n" \
	   "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n" \
	   "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:7 - cgroup cgroup rw,cpu,cpuacct\n"

/* A file of the tree, with the directories above it. */
static void put(const char *name, const char *text)
{
	char path[256];
	for (size_t i = 0; name[i]; i++)
		if (name[i] == '/') {
			snprintf(path, sizeof path, "%.*s", (int)i, name);
			mkdir(temp_path(path), 0755);
		}
	temp_file(name, text, strlen(text));
}

static int new_tree(void **state)
{
	remove_tree(AT_FDCWD, temp_dir);
	return mkdir(temp_dir, 0755);
}

static void machine(const char *groups, const char *mounts)
{
	put("proc/self/cgroup", groups);
	put("proc/self/mountinfo", mounts);
}

/* Quota times 1000, so that it can be compared. */
static int quota(void)
{
	processors p;
	processors_look(&p, temp_dir);
	assert_true(p.usable >= 1 && p.usable <= p.affinity);
	return (int)(1000 * p.quota + 0.5);
}

static void no_group_sets_no_quota(void **state)
{
	assert_int_equal(quota(), 0); /* no /proc at all */
	machine("0::/\n", V2);
	assert_int_equal(quota(), 0); /* the root group has no cpu.max */
	machine("0::/system.slice/winnow.service\n", V2);
	put("sys/fs/cgroup/system.slice/winnow.service/cpu.max", "max 100000\n");
	assert_int_equal(quota(), 0);
	put("sys/fs/cgroup/system.slice/winnow.service/cpu.max", "");
	assert_int_equal(quota(), 0);
	put("sys/fs/cgroup/system.slice/winnow.service/cpu.max", "100000 0\n");
	assert_int_equal(quota(), 0);
}

static void the_smallest_quota_up_to_the_root_counts(void **state)
{
	machine("0::/kube/pod/container\n", V2);
	put("sys/fs/cgroup/kube/pod/container/cpu.max", "300000 100000\n");
	assert_int_equal(quota(), 3000);
	put("sys/fs/cgroup/kube/pod/cpu.max", "75000 50000\n");
	assert_int_equal(quota(), 1500);
	put("sys/fs/cgroup/kube/cpu.max", "max 100000\n");
	assert_int_equal(quota(), 1500);
	put("sys/fs/cgroup/kube/cpu.max", "400000 100000\n");
	assert_int_equal(quota(), 1500);
	put("sys/fs/cgroup/cpu.max", "50000 100000\n"); /* a container's own root has one */
	assert_int_equal(quota(), 500);
	put("sys/fs/cpu.max", "1000 100000\n"); /* no group: above the mount */
	assert_int_equal(quota(), 500);
}

static void version_1_has_two_files(void **state)
{
	machine("9:name=systemd:/a\n5:cpuset:/b\n4:cpu,cpuacct:/docker/abc\n", V1);
	put("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "-1\n");
	put("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n");
	assert_int_equal(quota(), 0);
	put("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "250000\n");
	assert_int_equal(quota(), 2500);
	put("sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us", "20000\n");
	put("sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us", "10000\n");
	assert_int_equal(quota(), 2000);
	/* cpuset's path and files are nobody's quota */
	put("sys/fs/cgroup/cpuset/b/cpu.cfs_quota_us", "10000\n");
	put("sys/fs/cgroup/cpuset/b/cpu.cfs_period_us", "100000\n");
	assert_int_equal(quota(), 2000);
}

static void both_versions_at_once_count_both(void **state)
{
	machine("4:cpu,cpuacct:/a\n0::/b\n", V1 "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
	put("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "300000\n");
	put("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
	put("sys/fs/cgroup/unified/b/cpu.max", "400000 100000\n");
	assert_int_equal(quota(), 3000);
	put("sys/fs/cgroup/unified/b/cpu.max", "100000 100000\n");
	assert_int_equal(quota(), 1000);
}

static void containers_speak_of_other_roots(void **state)
{
	/* v1 without a cgroup namespace: the group's own part is what is mounted */
	machine("4:cpu,cpuacct:/docker/abc\n", "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n");
	put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n");
	put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
	assert_int_equal(quota(), 2000);
	/* another container's part is mounted: nothing better is known than that */
	machine("4:cpu,cpuacct:/docker/abcdef\n", "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n");
	assert_int_equal(quota(), 2000);
	/* a group outside of the namespace's root */
	machine("0::/../../elsewhere\n", V2);
	put("sys/fs/cgroup/cpu.max", "150000 100000\n");
	assert_int_equal(quota(), 1500);
	/* a path with a blank */
	machine("0::/a\n", "30 23 0:26 / /sys/fs/c\\040group rw - cgroup2 cgroup2 rw\n");
	put("sys/fs/c group/a/cpu.max", "100000 100000\n");
	assert_int_equal(quota(), 1000);
	/* lines that are none */
	machine("0::\nnonsense\n", "30 23\n - cgroup2\n\n30 23 0:26 / - cgroup2 x rw\n" V2);
	assert_int_equal(quota(), 1500);
}

static processors judged(int affinity, double limit, int online)
{
	processors p = {.affinity = affinity, .quota = limit};
	processors_judge(&p, online, "/sys/fs/cgroup/a/cpu.max");
	return p;
}

static void the_smaller_of_mask_and_quota_is_usable(void **state)
{
	static const struct {
		int affinity;
		double quota;
		int online, usable;
		const char *reason;
	} CASES[] = {
	    {8, 0, 8, 8, "8 of 8 processors"},
	    {2, 0, 8, 2, "2 of 8 processors: affinity mask"},
	    {8, 1.5, 8, 2, "2 of 8 processors: cgroup quota 1.5 (/sys/fs/cgroup/a/cpu.max)"},
	    {8, 2, 8, 2, "2 of 8 processors: cgroup quota 2 (/sys/fs/cgroup/a/cpu.max)"},
	    {8, 0.01, 8, 1, "1 of 8 processors: cgroup quota 0.01 (/sys/fs/cgroup/a/cpu.max)"},
	    {1, 1.5, 8, 1, "1 of 8 processors: affinity mask"},
	    {2, 7.5, 2, 2, "2 of 2 processors"},
	    {2, 1e9, 2, 2, "2 of 2 processors"},
	};
	for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
		const processors p = judged(CASES[i].affinity, CASES[i].quota, CASES[i].online);
		assert_int_equal(p.usable, CASES[i].usable);
		assert_string_equal(p.reason, CASES[i].reason);
	}
}

static void the_mask_is_what_the_thread_may_run_on(void **state)
{
	cpu_set_t before;
	processors all, p;
	assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
	processors_look(&all, temp_dir);
	assert_int_equal(all.affinity, CPU_COUNT(&before));
	assert_int_equal(all.usable, all.affinity);
	const int last = processors_nth(&all, all.affinity - 1);
	assert_true(last >= 0 && CPU_ISSET(last, &before));
	assert_int_equal(processors_nth(&all, all.affinity), -1);
	processors_pin(-1); /* nowhere: nothing happens */
	processors_pin(PROCESSORS_MOST);
	processors_pin(last);
	processors_look(&p, temp_dir);
	assert_int_equal(p.affinity, 1);
	assert_int_equal(processors_nth(&p, 0), last);
	assert_int_equal(processors_usable(), 1);
	processors_unpin(&all);
	processors_look(&p, temp_dir);
	assert_memory_equal(p.allowed, all.allowed, sizeof p.allowed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(no_group_sets_no_quota, new_tree),
	    cmocka_unit_test_setup(the_smallest_quota_up_to_the_root_counts, new_tree),
	    cmocka_unit_test_setup(version_1_has_two_files, new_tree),
	    cmocka_unit_test_setup(both_versions_at_once_count_both, new_tree),
	    cmocka_unit_test_setup(containers_speak_of_other_roots, new_tree),
	    cmocka_unit_test(the_smaller_of_mask_and_quota_is_usable),
	    cmocka_unit_test_setup(the_mask_is_what_the_thread_may_run_on, new_tree),
	};
	return cmocka_run_group_tests(tests, temp_dir_make, temp_dir_remove);
}
