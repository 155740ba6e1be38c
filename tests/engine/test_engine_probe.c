/* test_engine_probe.c: what a model would run on, asked of its shape, is what it runs on. */
#include <string.h>

#include "model/engine_probe.h"
#include "tests/engine/golden.h"

static wn_error err;

static void a_shape_tells_what_the_model_runs_on(void **state)
{
	static const char *const cases[] = {"base", "no_qkv_bias", "widths"};
	for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
		golden g;
		golden_open(&g, cases[c]);
		for (int p = 0; PRECISION_NAMES[p]; p++) {
			char text[ENGINE_PROBE_SIZE] = "";
			engine *e;
			assert_ok(engine_open(&e, g.ck.model, &(engine_options){.precision = (precision)p}, &err), &err);
			assert_ok(engine_probe(text, blip2_get_config(g.ck.model), (precision)p, &err), &err);
			assert_string_equal(text, engine_describe(e));
			assert_int_equal(strncmp(text, PRECISION_NAMES[p], strlen(PRECISION_NAMES[p])), 0);
			engine_close(&e);
		}
		golden_close(&g);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(a_shape_tells_what_the_model_runs_on)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
