/* Problems, access-log lines, the access log's writer and the metrics text. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "server/answers.h"
#include "server/access_log.h"
#include "server/metrics.h"

static void problem_has_every_member_of_rfc_9457(void **state)
{
	request *r = calloc(1, sizeof *r);
	strcpy(r->id, "abc");
	request_fail(r, REASON_UNSUPPORTED_IMAGE, "image: found gif, expected jpeg or png");
	char *text = answer_problem(r);
	assert_string_equal(text,
			    "{\"type\":\"urn:winnow:problem:unsupported_image\",\"title\":\"The image format is not "
			    "supported\",\"status\":415,\"detail\":\"image: found gif, expected jpeg or png\","
			    "\"reason\":\"unsupported_image\",\"request_id\":\"abc\"}");
	free(text);
	free(r);
}

static void every_reason_has_a_status_and_a_unique_name(void **state)
{
	for (int i = 0; i < REASON_COUNT; i++) {
		assert_in_range(reason_status((reason)i), 200, 599);
		for (int k = 0; k < i; k++)
			assert_string_not_equal(reason_name((reason)i), reason_name((reason)k));
	}
}

static void log_line_is_one_printable_line(void **state)
{
	request *r = calloc(1, sizeof *r);
	strcpy(r->id, "id");
	strcpy(r->method, "PO\x1b[31mST");
	strcpy(r->path, "/v1/\n{\"forged\":1}\x7f\xff\xe4\xbb\x8a");
	strcpy(r->data_id, "a\"b\\");
	r->stage_ns[STAGE_DECODE] = 1234567;
	request_fail(r, REASON_NOT_FOUND, "x");
	char *line = access_log_line(r);
	size_t n = strlen(line);
	for (size_t i = 0; i < n - 1; i++)
		assert_in_range((unsigned char)line[i], 0x20, 0x7e);
	assert_int_equal(line[n - 1], '\n');
	json_error_t je;
	json_t *o = json_loads(line, 0, &je);
	assert_non_null(o);
	assert_string_equal(json_string_value(json_object_get(o, "path")), "/v1/\n{\"forged\":1}??\xe4\xbb\x8a");
	assert_string_equal(json_string_value(json_object_get(o, "data_id")), "a\"b\\");
	assert_int_equal(json_integer_value(json_object_get(o, "status")), 404);
	assert_string_equal(json_string_value(json_object_get(o, "reason")), "not_found");
	assert_true(json_real_value(json_object_get(o, "decode_ms")) == 1.235);
	assert_null(json_object_get(o, "label"));
	json_decref(o);
	free(line);
	free(r);
}

static void slow_sink_costs_lines_and_not_time(void **state)
{
	char path[] = "/tmp/winnow-log-XXXXXX";
	assert_non_null(mkdtemp(path));
	char fifo[64];
	snprintf(fifo, sizeof fifo, "%s/fifo", path);
	char mk[96];
	snprintf(mk, sizeof mk, "mkfifo %s", fifo);
	assert_int_equal(system(mk), 0);
	int reader = open(fifo, O_RDONLY | O_NONBLOCK);
	access_log *log;
	wn_error err = {0};
	assert_int_equal(access_log_open(&log, fifo, 512, &err), WN_OK);
	/* Full from the start: however fast the writer thread is, it is stuck. */
	int filler = open(fifo, O_WRONLY | O_NONBLOCK);
	while (write(filler, path, 1) == 1)
		;
	close(filler);
	int64_t start = monotonic_ns();
	for (int i = 0; i < 5000; i++) {
		char *line = malloc(101);
		memset(line, 'x', 99);
		memcpy(line + 99, "\n", 2);
		access_log_write(log, line);
	}
	/* Beyond the buffer no line can go anywhere, and nobody waited for it. */
	assert_true(monotonic_ns() - start < 2000000000);
	assert_true(access_log_dropped(log) >= 5000 - 512 - 1);
	/* Nor is each buffered line waited for at the end. */
	start = monotonic_ns();
	access_log_close(&log);
	assert_true(monotonic_ns() - start < 5000000000);
	close(reader);
	unlink(fifo);
	rmdir(path);
}

static void log_file_gets_every_line(void **state)
{
	char path[] = "/tmp/winnow-log-XXXXXX";
	int fd = mkstemp(path);
	access_log *log;
	wn_error err = {0};
	assert_int_equal(access_log_open(&log, path, 4096, &err), WN_OK);
	for (int i = 0; i < 1000; i++) {
		char line[32];
		snprintf(line, sizeof line, "line %d\n", i);
		access_log_write(log, strdup(line));
	}
	access_log_close(&log);
	FILE *f = fdopen(fd, "r");
	char line[64], expected[64];
	for (int i = 0; i < 1000; i++) {
		snprintf(expected, sizeof expected, "line %d\n", i);
		assert_non_null(fgets(line, sizeof line, f));
		assert_string_equal(line, expected);
	}
	assert_null(fgets(line, sizeof line, f));
	fclose(f);
	unlink(path);
	err = (wn_error){0};
	assert_int_equal(access_log_open(&log, "/nonexistent/access.log", 16, &err), WN_IO);
	assert_string_equal(err.message,
			    "log.access: cannot append to /nonexistent/access.log: No such file or directory");
	assert_int_equal(access_log_open(&log, "", 16, &err), WN_OK);
	assert_null(log);
	access_log_write(log, strdup("nowhere\n"));
	access_log_close(&log);
}

static void a_line_that_cannot_be_made_is_lost_and_counted(void **state)
{
	access_log *log;
	wn_error err = {0};
	assert_int_equal(access_log_open(&log, "/dev/null", 4, &err), WN_OK);
	access_log_write(log, NULL);
	access_log_write(log, strdup("a line\n"));
	access_log_write(log, NULL);
	assert_int_equal(access_log_dropped(log), 2);
	access_log_close(&log);
	access_log_write(NULL, NULL);
}

static double value_of(const char *text, const char *line_start)
{
	const char *p = text;
	size_t n = strlen(line_start);
	while (p && (strncmp(p, line_start, n) != 0 || p[n] != ' ')) {
		p = strchr(p, '\n');
		p = p ? p + 1 : NULL;
	}
	if (!p)
		fail_msg("no line %s in\n%s", line_start, text);
	return atof(p + n + 1);
}

static void metrics_count_what_happened(void **state)
{
	metrics *m;
	wn_error err = {0};
	assert_int_equal(metrics_open(&m, &err), WN_OK);
	request *r = calloc(1, sizeof *r);
	r->received_ns = 1;
	r->answered_ns = 1 + 90000000; /* exactly the target: counts as met */
	r->stage_ns[STAGE_INFERENCE] = 50000000;
	metrics_count_request(m, r, 1);
	r->answered_ns = 1 + 90000001;
	metrics_count_request(m, r, 1);
	request_fail(r, REASON_QUEUE_FULL, "x");
	metrics_count_request(m, r, 1);
	metrics_count_request(m, r, 1);
	metrics_count_request(m, r, 0); /* not an audit: no shed */
	metrics_count_decision(m, "gam\"bling\\", "block");
	metrics_count_decision(m, "gam\"bling\\", "block");
	metrics_gauges g = {.queue_depth = 3, .queue_capacity = 32, .ready = 1};
	char *text = metrics_text(m, &g);
	assert_true(value_of(text, "winnow_requests_total{code=\"200\"}") == 2);
	assert_true(value_of(text, "winnow_requests_total{code=\"429\"}") == 3);
	assert_true(value_of(text, "winnow_sheds_total{reason=\"queue_full\"}") == 2);
	assert_true(value_of(text, "winnow_sheds_total{reason=\"deadline_exceeded\"}") == 0);
	assert_true(value_of(text, "winnow_request_duration_seconds_bucket{le=\"0.09\"}") == 1);
	assert_true(value_of(text, "winnow_request_duration_seconds_bucket{le=\"0.12\"}") == 2);
	assert_true(value_of(text, "winnow_request_duration_seconds_bucket{le=\"+Inf\"}") == 2);
	assert_true(value_of(text, "winnow_request_duration_seconds_count") == 2);
	assert_true(value_of(text, "winnow_stage_duration_seconds_bucket{stage=\"inference\",le=\"0.045\"}") == 0);
	assert_true(value_of(text, "winnow_stage_duration_seconds_bucket{stage=\"inference\",le=\"0.06\"}") == 4);
	assert_true(value_of(text, "winnow_decisions_total{label=\"gam\\\"bling\\\\\",suggestion=\"block\"}") == 2);
	assert_true(value_of(text, "winnow_queue_depth") == 3);
	assert_true(value_of(text, "process_resident_memory_bytes") > 1e5);
	assert_true(value_of(text, "process_start_time_seconds") > 1.5e9);
	free(text);
	free(r);
	metrics_close(&m);
}

static void every_decision_is_counted_however_many_labels_there_are(void **state)
{
	metrics *m;
	wn_error err = {0};
	assert_int_equal(metrics_open(&m, &err), WN_OK);
	for (int round = 0; round < 3; round++)
		for (int i = 0; i < 300; i++) {
			char label[16];
			snprintf(label, sizeof label, "label %d", i);
			metrics_count_decision(m, label, "pass");
		}
	metrics_gauges g = {0};
	char *text = metrics_text(m, &g);
	assert_true(value_of(text, "winnow_decisions_total{label=\"label 0\",suggestion=\"pass\"}") == 3);
	assert_true(value_of(text, "winnow_decisions_total{label=\"label 255\",suggestion=\"pass\"}") == 3);
	assert_null(strstr(text, "label 256"));
	assert_true(value_of(text, "winnow_decisions_total{label=\"other\",suggestion=\"other\"}") == 3 * (300 - 256));
	free(text);
	metrics_close(&m);
}

static void a_request_without_memory_to_begin_is_counted(void **state)
{
	metrics *m;
	wn_error err = {0};
	assert_int_equal(metrics_open(&m, &err), WN_OK);
	metrics_count_unbegun(m, 1);
	metrics_count_unbegun(m, 0);
	metrics_gauges g = {0};
	char *text = metrics_text(m, &g);
	assert_true(value_of(text, "winnow_requests_total{code=\"503\"}") == 2);
	assert_true(value_of(text, "winnow_sheds_total{reason=\"out_of_memory\"}") == 1);
	free(text);
	metrics_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(problem_has_every_member_of_rfc_9457),
	    cmocka_unit_test(every_reason_has_a_status_and_a_unique_name),
	    cmocka_unit_test(log_line_is_one_printable_line),
	    cmocka_unit_test(slow_sink_costs_lines_and_not_time),
	    cmocka_unit_test(log_file_gets_every_line),
	    cmocka_unit_test(a_line_that_cannot_be_made_is_lost_and_counted),
	    cmocka_unit_test(metrics_count_what_happened),
	    cmocka_unit_test(every_decision_is_counted_however_many_labels_there_are),
	    cmocka_unit_test(a_request_without_memory_to_begin_is_counted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
