/* cmd_preprocess.c: an image file to the model's pixel_values, for checking against BlipImageProcessor. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/checkpoint.h"
#include "model/safetensors.h"
#include "prune/commands.h"
#include "prune/options.h"

#define MAX_IMAGE_BYTES (64u << 20)

static wn_code read_processor(image_processor *ip, const char *dir, wn_error *err)
{
	char path[PATH_MAX];
	bool present;
	if (snprintf(path, sizeof path, "%s/config.json", dir) >= (int)sizeof path)
		return wn_fail(err, WN_TOO_LARGE, "--model: path longer than %d bytes", PATH_MAX);
	blip2_config *c = calloc(1, sizeof *c);
	if (!c)
		return wn_fail(err, WN_NOMEM, "out of memory");
	wn_code rc = hf_config_read(c, path, err);
	if (rc == WN_OK)
		rc = checkpoint_load_image_processor(ip, &present, dir, c, err);
	free(c);
	return rc;
}

static wn_code preprocess(const char *model, const char *image_path, const char *out, wn_error *err)
{
	image_processor ip;
	image img = {0};
	char *bytes = NULL;
	float *pixels = NULL;
	size_t len = 0;
	wn_code rc;
	if ((rc = read_processor(&ip, model, err)) || (rc = file_read(image_path, MAX_IMAGE_BYTES, &bytes, &len, err)))
		goto done;
	if ((rc = image_decode(&img, bytes, len, NULL, err))) {
		wn_fail_prefix(err, "%.200s", image_path);
		goto done;
	}
	pixels = malloc(3 * (size_t)ip.size * (size_t)ip.size * sizeof *pixels);
	if (!pixels) {
		rc = wn_fail(err, WN_NOMEM, "out of memory for %d x %d pixels", ip.size, ip.size);
		goto done;
	}
	if ((rc = image_preprocess(pixels, &ip, &img, err)))
		goto done;
	const safetensors_entry entry = {"pixel_values", {DTYPE_F32, 4, {1, 3, ip.size, ip.size}, pixels}};
	rc = safetensors_write(out, &entry, 1, err);
done:
	free(pixels);
	image_free(&img);
	free(bytes);
	return rc;
}

int cmd_preprocess(int argc, char **argv)
{
	const char *model = NULL, *image_path = NULL, *out = NULL;
	const option_spec options[] = {
		{"model", OPTION_STRING, &model, "DIR", "model directory (config.json, preprocessor_config.json)", .required = true},
		{"image", OPTION_STRING, &image_path, "FILE", "JPEG or PNG", .required = true},
		{"out", OPTION_STRING, &out, "FILE", "safetensors with pixel_values F32 [1, 3, H, W]", .required = true},
		{0}};
	const command_info info = {"preprocess", "an image file to the pixel_values the model sees",
	                           "winnow-prune preprocess --model teacher --image ad.jpg --out pixels.safetensors", options};
	int rc = options_parse(&info, argc, argv);
	if (rc != OPTIONS_OK)
		return rc == OPTIONS_HELP ? EXIT_DONE : EXIT_USAGE;
	wn_error err = {0};
	return preprocess(model, image_path, out, &err) ? command_fail(&info, &err) : EXIT_DONE;
}
