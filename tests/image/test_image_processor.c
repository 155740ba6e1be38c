/* preprocessor_config.json: what is accepted, and the exact line for what is not. */
#include <sys/stat.h>
#include <unistd.h>

#include "image_test.h"

static void absent_keys_take_blip_defaults(void **state)
{
	(void)state;
	image_processor p = {0};
	wn_error err = {0};
	assert_int_equal(image_processor_parse(&p, "{}", 2, &err), WN_OK);
	assert_int_equal(p.size, 384);
	assert_true(p.mean[0] == 0.48145466f && p.mean[1] == 0.4578275f && p.mean[2] == 0.40821073f);
	assert_true(p.std[0] == 0.26862954f && p.std[1] == 0.26130258f && p.std[2] == 0.27577711f);
	assert_true(p.rescale_factor == 1.0 / 255.0);
}

static void accepted_forms(void **state)
{
	(void)state;
	static const char nested[] = "{\"processor_class\": \"Blip2Processor\", \"image_processor\": {\"size\": {\"height\": "
				     "224, \"width\": 224}, \"image_processor_type\": \"BlipImageProcessorFast\"}}";
	image_processor p = {0};
	assert_int_equal(image_processor_parse(&p, nested, strlen(nested), NULL), WN_OK);
	assert_int_equal(p.size, 224);
	static const char off[] = "{\"size\": 64, \"do_rescale\": false, \"do_normalize\": false, \"do_pad\": null}";
	assert_int_equal(image_processor_parse(&p, off, strlen(off), NULL), WN_OK);
	assert_int_equal(p.size, 64);
	assert_true(p.rescale_factor == 1.0 && p.mean[2] == 0.0f && p.std[2] == 1.0f);
	static const char one[] = "{\"image_mean\": 0.5, \"image_std\": 0.25}";
	assert_int_equal(image_processor_parse(&p, one, strlen(one), NULL), WN_OK);
	assert_true(p.mean[0] == 0.5f && p.mean[2] == 0.5f && p.std[1] == 0.25f);
}

static void refusals_name_the_key(void **state)
{
	(void)state;
	static const struct {
		const char *json;
		wn_code code;
		const char *message;
	} cases[] = {
		{"", WN_INVALID, "line 1 column 0: '[' or '{' expected near end of file"},
		{"[]", WN_INVALID, "top level is not an object"},
		{"{\"size\": 1, \"size\": 2}", WN_INVALID, "line 1 column 18: duplicate object key near '\"size\"'"},
		{"{\"resample\": 2}", WN_UNSUPPORTED, "resample is 2, only 3 (bicubic) is supported"},
		{"{\"resample\": \"bicubic\"}", WN_INVALID, "resample is not an integer"},
		{"{\"do_resize\": false}", WN_UNSUPPORTED, "do_resize is false, only true is supported"},
		{"{\"do_convert_rgb\": false}", WN_UNSUPPORTED, "do_convert_rgb is false, only true is supported"},
		{"{\"do_center_crop\": true}", WN_UNSUPPORTED, "do_center_crop is true, only false is supported"},
		{"{\"do_pad\": true}", WN_UNSUPPORTED, "do_pad is true, only false is supported"},
		{"{\"do_normalize\": 1}", WN_INVALID, "do_normalize is not true or false"},
		{"{\"size\": {\"height\": 224, \"width\": 336}}", WN_UNSUPPORTED, "size is 336x224; only squares are supported"},
		{"{\"size\": {\"shortest_edge\": 224}}", WN_UNSUPPORTED,
		 "size has key shortest_edge; only height and width are supported"},
		{"{\"size\": {\"height\": 224}}", WN_INVALID, "size needs the integers height and width"},
		{"{\"size\": 0}", WN_INVALID, "size is 0, 1 to 4096 is expected"},
		{"{\"size\": 1000000}", WN_INVALID, "size is 1000000, 1 to 4096 is expected"},
		{"{\"size\": 2.5}", WN_INVALID, "size needs the integers height and width"},
		{"{\"image_mean\": [0.5, 0.5]}", WN_INVALID, "image_mean has 2 numbers, 3 are expected"},
		{"{\"image_mean\": \"0.5\"}", WN_INVALID, "image_mean is not a number or a list of 3 numbers"},
		{"{\"image_std\": [0.5, 0, 0.5]}", WN_INVALID, "image_std[1] is 0, more than 0 and finite is expected"},
		{"{\"image_std\": 1e300}", WN_INVALID, "image_std[0] is 1e+300, more than 0 and finite is expected"},
		{"{\"rescale_factor\": -1}", WN_INVALID, "rescale_factor is not a number above 0"},
		{"{\"rescale_factor\": \"x\"}", WN_INVALID, "rescale_factor is not a number above 0"},
		{"{\"image_processor_type\": \"ViTImageProcessor\"}", WN_UNSUPPORTED,
		 "image_processor_type is ViTImageProcessor, BlipImageProcessor is expected"},
		{"{\"image_processor_type\": 7}", WN_UNSUPPORTED,
		 "image_processor_type is not a string, BlipImageProcessor is expected"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		image_processor p = {.size = -7};
		wn_error err = {0};
		assert_int_equal(image_processor_parse(&p, cases[i].json, strlen(cases[i].json), &err), cases[i].code);
		assert_string_equal(err.message, cases[i].message);
		assert_int_equal(p.size, -7); /* a failure leaves the output alone */
	}
}

static void read_names_the_file(void **state)
{
	(void)state;
	image_processor p;
	wn_error err = {0};
	assert_int_equal(image_processor_read(&p, "/nonexistent/preprocessor_config.json", &err), WN_NOT_FOUND);
	assert_string_equal(err.message, "/nonexistent/preprocessor_config.json: cannot open: No such file or directory");
	err = (wn_error){0};
	assert_int_equal(image_processor_read(&p, IMAGE_TESTS "/goldens/index.txt", &err), WN_INVALID);
	assert_non_null(strstr(err.message, "goldens/index.txt: line 1 column"));
	err = (wn_error){0};
	assert_int_equal(image_processor_read(&p, IMAGE_TESTS, &err), WN_INVALID);
}

/* A pipe that came in its place since somebody looked: nobody waits for who writes into it. */
static void a_pipe_is_refused_and_not_waited_for(void **state)
{
	(void)state;
	char dir[] = "/tmp/winnow-image-XXXXXX", path[80];
	image_processor p;
	wn_error err = {0};
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/preprocessor_config.json", dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	alarm(30);
	const wn_code code = image_processor_read(&p, path, &err);
	alarm(0);
	unlink(path);
	rmdir(dir);
	assert_int_equal(code, WN_INVALID);
	assert_non_null(strstr(err.message, "expected a regular file"));
}

static void impossible_sizes_are_refused(void **state)
{
	(void)state;
	uint8_t px[3] = {1, 2, 3};
	image img = {1, 1, px}, none = {0, 0, px};
	float out[3];
	wn_error err = {0};
	assert_int_equal(image_preprocess(out, &(image_processor){.size = 0}, &img, &err), WN_INVALID);
	assert_string_equal(err.message, "image processor size is 0, 1 to 4096 is expected");
	err = (wn_error){0};
	uint8_t o[3];
	assert_int_equal(image_resize(o, 0, 1, &img, &err), WN_INVALID);
	assert_string_equal(err.message, "cannot resize 1x1 to 0x1; sides are 1 to 65535");
	assert_int_equal(image_resize(o, 1, 1, &none, NULL), WN_INVALID);
	assert_int_equal(image_resize(o, 1, 1, &img, NULL), WN_OK);
	assert_memory_equal(o, px, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(absent_keys_take_blip_defaults), cmocka_unit_test(accepted_forms),
		cmocka_unit_test(refusals_name_the_key),          cmocka_unit_test(read_names_the_file),
		cmocka_unit_test(a_pipe_is_refused_and_not_waited_for), cmocka_unit_test(impossible_sizes_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
