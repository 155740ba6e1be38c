/* test_publish.c: publishing as an operator does it: what arrives in the registry, what is refused and how it is said, and
 * that kill -9, a crowd of publishers or a failed check never leave anything but whole versions. The model is tiny and
 * random: what it answers does not matter here, that its answers are checked does. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <time.h>

#include "../engine/program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../base/assert_ok.h"
#include "../base/temp_dir.h"
#include "../engine/tiny_classifier.h"
#include "base/digest.h"
#include "base/file.h"
#include "model/checkpoint.h"
#include "model/self_test.h"
#include "prune/publish.h"

static const char *winnow_prune;

/* DIR/NAME, valid until 32 more are asked for: a test names fewer. */
static const char *in_dir(const char *dir, const char *name)
{
	static char buf[32][600];
	static unsigned next;
	char path[600];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	return strcpy(buf[next++ % 32], path);
}

/* For what lives as long as its test. */
static const char *own_path(const char *name)
{
	static char buf[64][128];
	static unsigned used;
	assert_true(used < 64);
	snprintf(buf[used], sizeof buf[0], "%s/%s", temp_dir, name);
	return buf[used++];
}

/* ---- a tiny model ---- */

static const char *make_model(const char *name, const tiny_classifier *t)
{
	const char *dir = own_path(name);
	assert_ok(tiny_classifier_write(dir, t, err));
	return dir;
}

static const char *plain_model(const char *name) { return make_model(name, &(tiny_classifier){.seed = 1}); }

/* Replaces one key of DIR/winnow.json (NULL: removes it). The files stay as they are. */
static void edit(const char *dir, const char *key, const char *json)
{
	const char *path = in_dir(dir, "winnow.json");
	json_t *root = json_load_file(path, 0, NULL), *v = json ? json_loads(json, JSON_DECODE_ANY, NULL) : NULL;
	assert_non_null(root);
	if (json) {
		assert_non_null(v);
		json_object_set_new(root, key, v);
	} else {
		assert_int_equal(json_object_del(root, key), 0);
	}
	assert_int_equal(json_dump_file(root, path, JSON_INDENT(2)), 0);
	json_decref(root);
}

/* ---- looking into a registry ---- */

static const char *make_registry(const char *name)
{
	const char *path = own_path(name);
	assert_int_equal(mkdir(path, 0755), 0);
	return path;
}

typedef struct census {
	int versions, largest, hidden;
} census;

/* winnow.json, exactly the files it names, each with its digest, all readable by everybody. */
static void assert_whole(const char *dir)
{
	manifest m;
	struct stat st;
	size_t entries = 0;
	assert_ok(manifest_read(&m, in_dir(dir, "winnow.json"), err));
	assert_true(json_object_size(m.files) >= 4);
	assert_non_null(m.self_test);
	assert_ok(manifest_verify(&m, dir, err));
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	DIR *d = opendir(dir);
	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (strcmp(e->d_name, "winnow.json") != 0 && !json_object_get(m.files, e->d_name))
			fail_msg("%s/%s: not named in winnow.json", dir, e->d_name);
		assert_int_equal(fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW), 0);
		assert_true(S_ISREG(st.st_mode));
		assert_int_equal(st.st_mode & 07777, 0644);
		entries++;
	}
	closedir(d);
	assert_int_equal(entries, json_object_size(m.files) + 1);
	manifest_close(&m);
}

/* Every entry of REGISTRY/NAME is a whole version or hidden. Versions up to `checked` are only counted. */
static census take_census(const char *registry, const char *name, int checked)
{
	census c = {0};
	DIR *d = opendir(in_dir(registry, name));
	for (struct dirent *e; d && (e = readdir(d));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (!strncmp(e->d_name, ".publish-", 9)) {
			c.hidden++;
			continue;
		}
		int v = atoi(e->d_name);
		char text[16];
		snprintf(text, sizeof text, "%d", v);
		assert_string_equal(text, e->d_name);
		assert_true(v > 0);
		c.versions++;
		c.largest = v > c.largest ? v : c.largest;
		if (v > checked)
			assert_whole(in_dir(in_dir(registry, name), e->d_name));
	}
	if (d)
		closedir(d);
	return c;
}

static void assert_answers(const char *dir)
{
	classifier *c = NULL;
	classifier_session *s = NULL;
	const classifier_options opt = {.load.verify_digests = true};
	assert_ok(classifier_open(&c, dir, &opt, err));
	assert_ok(classifier_session_open(&s, c, 1, err));
	assert_ok(self_test_run(c, s, &classifier_checkpoint(c)->manifest, err));
	classifier_session_close(&s);
	classifier_close(&c);
}

static void publish(outcome *o, const char *dir, const char *registry, const char *name)
{
	RUN(o, "publish", "--model", dir, "--registry", registry, "--name", name);
	if (o->exit_code != 0)
		fail_msg("%s", o->err);
}

static char *slurp(const char *path)
{
	char *text;
	size_t len;
	assert_ok(file_read(path, 1 << 20, &text, &len, err));
	return text;
}

/* ---- what arrives ---- */

static void a_model_becomes_the_next_version(void **state)
{
	const char *dir = plain_model("model"), *registry = make_registry("registry");
	char expected[700];
	outcome o;
	mode_t old = umask(077); /* a publisher's umask must not lock the server's user out */
	publish(&o, dir, registry, "tiny");
	umask(old);
	snprintf(expected, sizeof expected, ") to %s/tiny/1\n", registry);
	assert_non_null(strstr(o.out, expected));
	assert_true(strncmp(o.out, "published tiny version 1 (", 26) == 0);
	assert_non_null(strstr(o.out, " parameters, 0."));
	assert_non_null(strstr(o.err, "self_test"));
	publish(&o, in_dir(dir, "/"), in_dir(registry, "/"), "tiny");
	snprintf(expected, sizeof expected, ") to %s/tiny/2\n", registry);
	assert_non_null(strstr(o.out, expected));
	const census c = take_census(registry, "tiny", 0);
	assert_int_equal(c.versions, 2);
	assert_int_equal(c.largest, 2);
	assert_int_equal(c.hidden, 0);
	assert_answers(in_dir(registry, "tiny/1"));
	struct stat st;
	assert_int_equal(stat(in_dir(registry, "tiny"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
}

static void another_name_is_written_into_the_copy_only(void **state)
{
	const char *dir = plain_model("named"), *registry = make_registry("names");
	char *before = slurp(in_dir(dir, "winnow.json"));
	manifest a, b;
	outcome o;
	publish(&o, dir, registry, "other.name");
	assert_non_null(strstr(o.err, "winnow.json says tiny"));
	char *after = slurp(in_dir(dir, "winnow.json"));
	assert_string_equal(before, after);
	assert_ok(manifest_read(&a, in_dir(dir, "winnow.json"), err));
	assert_ok(manifest_read(&b, in_dir(registry, "other.name/1/winnow.json"), err));
	assert_string_equal(a.name, "tiny");
	assert_string_equal(b.name, "other.name");
	assert_null(a.self_test);
	assert_true(json_equal(a.files, b.files));
	assert_string_equal(a.prompt, b.prompt);
	assert_memory_equal(a.labels, b.labels, sizeof *a.labels * 2);
	assert_whole(in_dir(registry, "other.name/1"));
	manifest_close(&a);
	manifest_close(&b);
	free(before);
	free(after);
}

/* The way back without touching a server's configuration: the old version becomes the newest one. */
static void a_published_version_is_published_again_unchanged(void **state)
{
	const char *registry = make_registry("again");
	outcome o;
	publish(&o, plain_model("first"), registry, "tiny");
	publish(&o, make_model("second", &(tiny_classifier){.seed = 2}), registry, "tiny");
	publish(&o, in_dir(registry, "tiny/1"), registry, "tiny");
	assert_string_equal(o.err, "");
	assert_non_null(strstr(o.out, "tiny version 3 "));
	char *one = slurp(in_dir(registry, "tiny/1/winnow.json")), *two = slurp(in_dir(registry, "tiny/2/winnow.json")),
	     *three = slurp(in_dir(registry, "tiny/3/winnow.json"));
	assert_string_equal(one, three);
	assert_string_not_equal(one, two);
	free(one);
	free(two);
	free(three);
}

static void a_number_can_be_chosen_but_not_taken(void **state)
{
	const char *dir = plain_model("numbered"), *registry = make_registry("numbers");
	outcome o;
#define NUMBERED(n) RUN(&o, "publish", "--model", dir, "--registry", registry, "--name", "tiny", "--version", n)
	NUMBERED("7");
	assert_int_equal(o.exit_code, 0);
	assert_non_null(strstr(o.out, "/tiny/7\n"));
	NUMBERED("7");
	assert_refused(&o, 1, "/tiny/7: exists already");
	assert_int_equal(mkdir(in_dir(registry, "tiny/9"), 0755), 0); /* somebody's, and empty: rename would replace it */
	NUMBERED("9");
	assert_refused(&o, 1, "/tiny/9: exists already");
	publish(&o, dir, registry, "tiny");
	assert_non_null(strstr(o.out, "/tiny/10\n"));
	assert_int_equal(rmdir(in_dir(registry, "tiny/9")), 0);
	temp_file("numbers/tiny/999999999", "", 0);
	RUN(&o, "publish", "--model", dir, "--registry", registry, "--name", "tiny");
	assert_refused(&o, 1, "no larger number");
	NUMBERED("8");
	assert_int_equal(o.exit_code, 0);
	unlink(in_dir(registry, "tiny/999999999"));
	const census c = take_census(registry, "tiny", 0);
	assert_int_equal(c.versions, 3);
	assert_int_equal(c.hidden, 0);
	NUMBERED("1000000000");
	assert_refused(&o, 2, "--version");
	NUMBERED("-1");
	assert_refused(&o, 2, "--version");
}

static void a_dry_run_writes_nothing(void **state)
{
	const char *dir = plain_model("dry"), *registry = make_registry("untouched");
	outcome o;
	const int before = temp_dir_entries();
	RUN(&o, "publish", "--model", dir, "--registry", registry, "--name", "tiny", "--dry-run");
	assert_int_equal(o.exit_code, 0);
	assert_true(strncmp(o.out, "would publish tiny version 1 (", 30) == 0);
	assert_int_equal(temp_dir_entries(), before);
	assert_int_equal(rmdir(registry), 0); /* still empty */
}

/* ---- what is refused ---- */

static const char *bad_registry;

static void refuse(const char *dir, const char *word)
{
	outcome o;
	RUN(&o, "publish", "--model", dir, "--registry", bad_registry, "--name", "tiny");
	assert_refused(&o, 1, word);
	if (access(in_dir(bad_registry, "tiny"), F_OK) == 0)
		fail_msg("%s: something was written: %s", dir, o.err);
}

static void directories_that_are_no_whole_classifier_are_refused(void **state)
{
	bad_registry = make_registry("stays-empty");
	refuse(temp_path("nowhere"), "nowhere: cannot open the model directory: No such file");
	refuse(temp_file("a-file", "x", 1), "a-file: cannot open the model directory: Not a directory");
	const char *dir = plain_model("bad");
	assert_int_equal(rename(in_dir(dir, "winnow.json"), temp_path("aside")), 0);
	refuse(dir, "bad/winnow.json: found no such file");
	assert_int_equal(rename(temp_path("aside"), in_dir(dir, "winnow.json")), 0);

	temp_file("bad/README.md", "x", 1);
	refuse(dir, "bad/README.md: found a file that winnow.json does not name");
	unlink(in_dir(dir, "README.md"));
	temp_file("bad/.config.json.1-0.tmp", "x", 1);
	refuse(dir, ".config.json.1-0.tmp: found a file");
	unlink(in_dir(dir, ".config.json.1-0.tmp"));
	assert_int_equal(mkdir(in_dir(dir, "sub"), 0755), 0);
	refuse(dir, "bad/sub: found a directory");
	rmdir(in_dir(dir, "sub"));
	assert_int_equal(mkfifo(in_dir(dir, "pipe"), 0644), 0);
	refuse(dir, "bad/pipe: found a special file");
	unlink(in_dir(dir, "pipe"));
	assert_int_equal(rename(in_dir(dir, "config.json"), temp_path("aside")), 0);
	assert_int_equal(symlink(temp_path("aside"), in_dir(dir, "config.json")), 0);
	refuse(dir, "bad/config.json: found a symbolic link");
	unlink(in_dir(dir, "config.json"));
	refuse(dir, "bad/config.json: found no such file");
	assert_int_equal(rename(temp_path("aside"), in_dir(dir, "config.json")), 0);

	FILE *f = fopen(in_dir(dir, "model.safetensors"), "r+b");
	assert_int_equal(fseek(f, -1, SEEK_END), 0);
	const int last = fgetc(f);
	assert_int_equal(fseek(f, -1, SEEK_END), 0);
	fputc(last ^ 1, f);
	fclose(f);
	refuse(dir, "bad/model.safetensors: found sha256:");

	dir = plain_model("bad");
	edit(dir, "files", NULL);
	refuse(dir, "bad/winnow.json: files: found none");
	dir = plain_model("bad");
	edit(dir, "labels", NULL);
	refuse(dir, "bad/winnow.json: labels: found none");
	dir = plain_model("bad");
	edit(dir, "name", "\"../evil\"");
	refuse(dir, "bad/winnow.json: name");
	refuse(make_model("bad", &(tiny_classifier){1, "qformer.layernorm.weight", NAN}), "tensor qformer.layernorm.weight: element 0 is");
	/* Finite weights, but the answers are not. */
	refuse(make_model("bad", &(tiny_classifier){1, "language_model.model.decoder.final_layer_norm.weight", 3e38f}), "label ok: log-probability");
}

static void registries_that_cannot_take_it_are_named(void **state)
{
	const char *dir = plain_model("good"), *registry = make_registry("odd");
	outcome o;
#define INTO(registry_, name) RUN(&o, "publish", "--model", dir, "--registry", registry_, "--name", name)
	INTO(temp_path("no-registry"), "tiny");
	assert_refused(&o, 1, "no-registry: no such directory");
	assert_int_equal(access(temp_path("no-registry"), F_OK), -1);
	INTO(temp_file("registry-file", "", 0), "tiny");
	assert_refused(&o, 1, "registry-file: cannot open the registry: Not a directory");
	temp_file("odd/file", "", 0);
	INTO(registry, "file");
	assert_refused(&o, 1, "odd/file: found a file");
	assert_int_equal(symlink(registry, in_dir(registry, "link")), 0);
	INTO(registry, "link");
	assert_refused(&o, 1, "odd/link: found a symbolic link");
	static const char *const names[] = {".hidden", "..", "a/b", "a b", "今",
	                                    "0123456789012345678901234567890123456789012345678901234567890123x"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		INTO(registry, names[i]);
		assert_refused(&o, 2, "--name");
	}
	INTO(registry, "");
	assert_refused(&o, 2, "--name");
	RUN(&o, "publish", "--model", dir, "--registry", registry);
	assert_refused(&o, 2, "--name");
}

/* Root may write everywhere: the library is asked as nobody. */
static void a_registry_without_permission_is_named(void **state)
{
	const char *dir = plain_model("readable"), *registry = make_registry("read-only");
	const publish_options opt = {.model_dir = dir, .registry = registry, .name = "tiny"};
	assert_int_equal(chmod(temp_dir, 0755), 0);
	assert_int_equal(chmod(registry, 0555), 0);
	const pid_t child = fork();
	if (child == 0) {
		publication p;
		wn_error err = {0};
		if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
			_exit(2);
		const wn_code rc = publish_open(&p, &opt, &err);
		_exit(rc == WN_IO && strstr(err.message, "/read-only: not writable: Permission denied") ? 0 : 1);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_model_that_changes_meanwhile_is_not_published(void **state)
{
	const char *dir = plain_model("changing"), *registry = make_registry("unchanged");
	const publish_options opt = {.model_dir = dir, .registry = registry, .name = "tiny"};
	publication p;
	wn_error failure = {0};
	assert_ok(publish_open(&p, &opt, err));
	temp_file("changing/tokenizer.json", "{}", 2);
	assert_int_equal(publish_commit(&p, &failure), WN_INVALID);
	assert_non_null(strstr(failure.message, "changing/tokenizer.json: changed while it was published"));
	publish_close(&p);
	const census c = take_census(registry, "tiny", 0);
	assert_int_equal(c.versions + c.hidden, 0);

	/* And Ctrl-C leaves no trace either. */
	volatile sig_atomic_t stop = 0;
	publish_options stopped = opt;
	stopped.stop = &stop;
	plain_model("changing");
	assert_ok(publish_open(&p, &stopped, err));
	stop = 1;
	failure = (wn_error){0};
	assert_int_equal(publish_commit(&p, &failure), WN_CANCELLED);
	publish_close(&p);
	const census after = take_census(registry, "tiny", 0);
	assert_int_equal(after.versions + after.hidden, 0);
}

/* ---- the self test ---- */

static void the_self_test_notices_another_model(void **state)
{
	const char *registry = make_registry("self-tests"), *other = make_model("other", &(tiny_classifier){.seed = 2});
	manifest m;
	outcome o;
	publish(&o, plain_model("tested"), registry, "tiny");
	assert_ok(manifest_read(&m, in_dir(registry, "tiny/1/winnow.json"), err));
	char *text = json_dumps(m.self_test, 0);
	/* One model's answers in another's directory, files and digests in order. */
	edit(other, "self_test", text);
	RUN(&o, "publish", "--model", other, "--registry", registry, "--name", "tiny");
	assert_refused(&o, 1, "other/winnow.json: self_test: label ");
	assert_non_null(strstr(o.err, "within 0.001"));
	/* Its own, a little off. */
	const char *same = plain_model("same");
	json_t *list = json_object_get(m.self_test, "probabilities");
	const double p = json_number_value(json_array_get(list, 0));
	json_array_set_new(list, 0, json_real(p < 0.5 ? p + 0.0009 : p - 0.0009));
	free(text);
	text = json_dumps(m.self_test, 0);
	edit(same, "self_test", text);
	publish(&o, same, registry, "tiny");
	json_array_set_new(list, 0, json_real(p < 0.5 ? p + 0.0011 : p - 0.0011));
	free(text);
	text = json_dumps(m.self_test, 0);
	edit(same, "self_test", text);
	RUN(&o, "publish", "--model", same, "--registry", registry, "--name", "tiny");
	assert_refused(&o, 1, "label ok: found probability");
	const census c = take_census(registry, "tiny", 0);
	assert_int_equal(c.versions, 2);
	free(text);
	manifest_close(&m);
}

static void malformed_self_tests_are_named(void **state)
{
	static const struct {
		const char *json, *message;
		wn_code code;
	} bad[] = {
		{"{}", "self_test: image: found nothing, expected a text", WN_INVALID},
		{"{\"image\":1}", "self_test: image: found something else, expected a text", WN_INVALID},
		{"{\"image\":\"gradient-1\"}", "self_test: text: found nothing, expected a text", WN_INVALID},
		{"{\"image\":\"gradient-1\",\"text\":\"\",\"assist\":[]}", "self_test: assist: found something else, expected a text",
	         WN_INVALID},
		{"{\"image\":\"gradient-1\",\"text\":\"\"}", "self_test: probabilities: found 0, expected 2, one per label", WN_INVALID},
		{"{\"image\":\"gradient-1\",\"text\":\"\",\"probabilities\":[1]}",
	         "self_test: probabilities: found 1, expected 2, one per label", WN_INVALID},
		{"{\"image\":\"gradient-1\",\"text\":\"\",\"probabilities\":[0,1.5]}",
	         "self_test: probabilities[1]: expected a number from 0 to 1", WN_INVALID},
		{"{\"image\":\"gradient-1\",\"text\":\"\",\"probabilities\":[0,1]}",
	         "self_test: tolerance: expected a number above 0, at most 1", WN_INVALID},
		{"{\"image\":\"gradient-1\",\"text\":\"\",\"probabilities\":[0,1],\"tolerance\":0}",
	         "self_test: tolerance: expected a number above 0, at most 1", WN_INVALID},
		{"{\"image\":\"photo\",\"text\":\"\",\"probabilities\":[0,1],\"tolerance\":1}",
	         "self_test: image: found \"photo\", expected \"gradient-1\"", WN_UNSUPPORTED},
		{"{\"picture\":\"gradient-1\"}",
	         "self_test: picture: found an unknown key, expected image, text, assist, probabilities, tolerance", WN_INVALID},
	};
	classifier *c = NULL;
	classifier_session *s = NULL;
	assert_ok(classifier_open(&c, plain_model("malformed"), NULL, err));
	assert_ok(classifier_session_open(&s, c, 1, err));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		manifest m = {.self_test = json_loads(bad[i].json, 0, NULL)};
		wn_error err = {0};
		assert_non_null(m.self_test);
		assert_int_equal(self_test_run(c, s, &m, &err), bad[i].code);
		assert_string_equal(err.message, bad[i].message);
		manifest_close(&m);
	}
	manifest loose = {.self_test = json_loads("{\"image\":\"gradient-1\",\"text\":\"x\",\"probabilities\":[0,1],\"tolerance\":1}",
	                                          0, NULL)};
	assert_ok(self_test_run(c, s, &loose, err));
	manifest_close(&loose);
	assert_ok(self_test_run(c, s, &loose, err)); /* none */
	classifier_session_close(&s);
	classifier_close(&c);
}

/* Published versions depend on every pixel: the digest is of the same formula in Python,
 *   b"".join(bytes([x*255//319, y*255//239, 255*((x//16+y//16)%2)]) for y in range(240) for x in range(320)) */
static void the_picture_never_changes(void **state)
{
	image img;
	char digest[DIGEST_SIZE];
	assert_ok(self_test_image(&img, "gradient-1", err));
	assert_int_equal(img.width, 320);
	assert_int_equal(img.height, 240);
	digest_memory(digest, img.rgb, 320 * 240 * 3);
	assert_string_equal(digest, "sha256:e63ca7ae0fec76835b5896e27e7502926b3eb80082ca2e01182c27d73e8be7fe");
	image_free(&img);
}

/* ---- killed, crowded, left over ---- */

static pid_t start_publish(const char *dir, const char *registry)
{
	const pid_t child = fork();
	if (child == 0) {
		const int null = open("/dev/null", O_RDWR);
		dup2(null, 1);
		dup2(null, 2);
		execl(winnow_prune, winnow_prune, "publish", "--model", dir, "--registry", registry, "--name", "tiny", (char *)NULL);
		_exit(127);
	}
	assert_true(child > 0);
	return child;
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void pause_for(double seconds)
{
	struct timespec t = {(time_t)seconds, (long)(fmod(seconds, 1) * 1e9)};
	nanosleep(&t, NULL);
}

static bool has_ended(pid_t child)
{
	siginfo_t info = {0};
	return waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == child;
}

/* Waits until the registry holds more hidden directories than `before`: the copying has begun. */
static void wait_for_copying(pid_t child, const char *registry, int before)
{
	for (;;) {
		int hidden = 0;
		DIR *d = opendir(in_dir(registry, "tiny"));
		for (struct dirent *e; d && (e = readdir(d));)
			hidden += !strncmp(e->d_name, ".publish-", 9);
		if (d)
			closedir(d);
		if (hidden > before || has_ended(child))
			return;
		pause_for(1e-4);
	}
}

/* A file that takes some time to copy. */
static void add_large_file(const char *dir)
{
	const size_t size = (size_t)8 << 20;
	char *bytes = malloc(size);
	manifest m;
	memset(bytes, 'x', size);
	assert_ok(file_write_atomic(in_dir(dir, "notes.bin"), bytes, size, err));
	free(bytes);
	assert_ok(manifest_read(&m, in_dir(dir, "winnow.json"), err));
	assert_ok(manifest_digest_files(&m, dir, err));
	assert_ok(manifest_write(&m, in_dir(dir, "winnow.json"), err));
	manifest_close(&m);
}

static void make_old(const char *path)
{
	const struct timespec t[2] = {{time(NULL) - 2 * 86400, 0}, {time(NULL) - 2 * 86400, 0}};
	assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
}

static void kill_minus_9_leaves_whole_versions_only(void **state)
{
	enum { ROUNDS = 40 };
	const char *dir = plain_model("killed"), *registry = make_registry("survivor");
	int done = 0, killed = 0, in_the_middle = 0;
	outcome o;
	add_large_file(dir);
	double start = now();
	publish(&o, dir, registry, "tiny");
	const double whole_run = now() - start;
	census c = take_census(registry, "tiny", 0);
	srand(1);
	for (int i = 0; i < ROUNDS; i++) {
		const double fraction = rand() / (double)RAND_MAX;
		const pid_t child = start_publish(dir, registry);
		int status;
		if (i % 2 == 0) { /* anywhere */
			pause_for(1.1 * whole_run * fraction);
		} else { /* somewhere in the copying, which is the shorter part */
			wait_for_copying(child, registry, c.hidden);
			pause_for(fraction < 0.3 ? 0 : 0.5 * whole_run * (fraction - 0.3));
		}
		kill(child, SIGKILL);
		assert_int_equal(waitpid(child, &status, 0), child);
		killed += WIFSIGNALED(status);
		if (!WIFSIGNALED(status)) { /* done before the signal came: then all of it */
			assert_int_equal(WEXITSTATUS(status), 0);
			done++;
		}
		const census after = take_census(registry, "tiny", c.largest);
		assert_int_equal(after.versions, after.largest); /* no number is lost */
		assert_true(after.versions - c.versions <= 1 && after.hidden - c.hidden <= 1);
		in_the_middle += after.hidden - c.hidden;
		c = after;
	}
	print_message("%d rounds: %d killed, %d of them amid the copy; %d ran to the end; %d versions\n", ROUNDS, killed,
	              in_the_middle, done, c.versions);
	assert_true(killed >= ROUNDS / 4);
	assert_true(in_the_middle >= 3); /* or this test did not test */
	publish(&o, dir, registry, "tiny");
	assert_int_equal(take_census(registry, "tiny", 0).versions, c.versions + 1);
	assert_int_equal(take_census(registry, "tiny", 0).hidden, c.hidden); /* too young to be removed */
	char newest[32];
	snprintf(newest, sizeof newest, "tiny/%d", c.versions + 1);
	assert_answers(in_dir(registry, newest));

	DIR *d = opendir(in_dir(registry, "tiny"));
	for (struct dirent *e; (e = readdir(d));)
		if (!strncmp(e->d_name, ".publish-", 9))
			make_old(in_dir(in_dir(registry, "tiny"), e->d_name));
	closedir(d);
	publish(&o, dir, registry, "tiny");
	assert_non_null(strstr(o.err, "leftovers of interrupted publishes: removed"));
	assert_int_equal(take_census(registry, "tiny", 0).hidden, 0);
}

static void a_live_publishers_directory_is_not_removed(void **state)
{
	const char *dir = plain_model("polite"), *registry = make_registry("shared");
	outcome o;
	assert_int_equal(mkdir(in_dir(registry, "tiny"), 0755), 0);
	assert_int_equal(mkdir(in_dir(registry, "tiny/.publish-1-live"), 0755), 0);
	assert_int_equal(mkdir(in_dir(registry, "tiny/.publish-2-dead"), 0755), 0);
	assert_int_equal(mkdir(in_dir(registry, "tiny/.publish-3-young"), 0755), 0);
	temp_file("shared/tiny/.publish-2-dead/config.json", "{", 1);
	make_old(in_dir(registry, "tiny/.publish-1-live"));
	make_old(in_dir(registry, "tiny/.publish-2-dead"));
	const int held = open(in_dir(registry, "tiny/.publish-1-live"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(flock(held, LOCK_EX), 0);
	publish(&o, dir, registry, "tiny");
	assert_int_equal(access(in_dir(registry, "tiny/.publish-1-live"), F_OK), 0);
	assert_int_equal(access(in_dir(registry, "tiny/.publish-2-dead"), F_OK), -1);
	assert_int_equal(access(in_dir(registry, "tiny/.publish-3-young"), F_OK), 0);
	assert_non_null(strstr(o.err, "removed 1"));
	close(held);
}

static void a_crowd_gets_a_number_each(void **state)
{
	enum { CROWD = 6 };
	const char *dir = plain_model("popular"), *registry = make_registry("crowded");
	pid_t child[CROWD];
	for (int i = 0; i < CROWD; i++)
		child[i] = start_publish(dir, registry);
	for (int i = 0; i < CROWD; i++) {
		int status;
		assert_int_equal(waitpid(child[i], &status, 0), child[i]);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 0);
	}
	const census c = take_census(registry, "tiny", 0);
	assert_int_equal(c.versions, CROWD);
	assert_int_equal(c.largest, CROWD);
	assert_int_equal(c.hidden, 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_model_becomes_the_next_version),
		cmocka_unit_test(another_name_is_written_into_the_copy_only),
		cmocka_unit_test(a_published_version_is_published_again_unchanged),
		cmocka_unit_test(a_number_can_be_chosen_but_not_taken),
		cmocka_unit_test(a_dry_run_writes_nothing),
		cmocka_unit_test(directories_that_are_no_whole_classifier_are_refused),
		cmocka_unit_test(registries_that_cannot_take_it_are_named),
		cmocka_unit_test(a_registry_without_permission_is_named),
		cmocka_unit_test(a_model_that_changes_meanwhile_is_not_published),
		cmocka_unit_test(the_self_test_notices_another_model),
		cmocka_unit_test(malformed_self_tests_are_named),
		cmocka_unit_test(the_picture_never_changes),
		cmocka_unit_test(kill_minus_9_leaves_whole_versions_only),
		cmocka_unit_test(a_live_publishers_directory_is_not_removed),
		cmocka_unit_test(a_crowd_gets_a_number_each),
	};
	winnow_prune = argc > 1 ? argv[1] : "winnow-prune";
	program_is(winnow_prune);
	return cmocka_run_group_tests(tests, temp_dir_make, temp_dir_remove);
}
