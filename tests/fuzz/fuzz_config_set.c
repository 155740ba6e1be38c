/* --set KEY=VALUE on the server's table, a line each: what is taken is printed and reads back as the same, and makes rate limits. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/config.h"
#include "server/rate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_printed(const server_config *c)
{
	char *text = NULL;
	size_t len = 0;
	server_config again;
	wn_error err = {0};
	FILE *f = open_memstream(&text, &len);
	if (!f)
		abort();
	config_print(&SERVER_CONFIG_SCHEMA, c, f);
	fclose(f);
	if (config_parse(&SERVER_CONFIG_SCHEMA, &again, "printed", text, len, &err) != WN_OK)
		abort();
	if (!*c->inference_key && !*c->metrics_key && !*c->admin_key && /* secrets are not printed */
	    config_first_difference(&SERVER_CONFIG_SCHEMA, c, &again, 0))
		abort();
	free(text);
	config_free(&SERVER_CONFIG_SCHEMA, &again);
}

static void check_rate(double per_second, int burst)
{
	const rate_limit l = rate_limit_of(per_second, burst);
	rate_bucket b = 0;
	if (rate_take(&b, &l, 0) != 0 || l.burst_ns / burst != l.interval_ns)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	server_config c;
	wn_error err = {0};
	char *text = malloc(size + 1);
	if (!text || config_defaults(&SERVER_CONFIG_SCHEMA, &c, &err) != WN_OK)
		abort();
	memcpy(text, data, size);
	text[size] = 0;
	for (char *line = text, *next; line; line = next) {
		wn_error refused = {0};
		if ((next = strchr(line, '\n')))
			*next++ = 0;
		if (config_set(&SERVER_CONFIG_SCHEMA, &c, line, &refused) != WN_OK && !*refused.message)
			abort();
	}
	if (server_config_check(&c, &err) == WN_OK) {
		check_rate(c.rate_inference, c.rate_burst);
		check_rate(c.rate_metrics, c.rate_burst);
		check_rate(c.rate_admin, c.rate_burst);
	} else if (!*err.message) {
		abort();
	}
	check_printed(&c);
	free(text);
	config_free(&SERVER_CONFIG_SCHEMA, &c);
	return 0;
}
