/* engine_probe.c: see engine_probe.h. A kernel is chosen by widths, types and processor: one block of each stack has the layers
 * that engine_describe looks at, and zeros multiply like any other numbers. */
#include "model/engine_probe.h"

#include <stdio.h>

#define FEW_TOKENS 16

/* The same widths with as little around them as there can be. */
static blip2_config narrowed(const blip2_config *shape)
{
	blip2_config c = *shape;
	for (int i = 0; i < NUM_COMPONENTS; i++)
		shape_stack_in(&c, (component)i)->num_hidden_layers = 1;
	c.vocab_size = FEW_TOKENS;
	c.max_position_embeddings = c.num_query_tokens + 1;
	c.bos_token_id = c.eos_token_id = c.pad_token_id = c.image_token_index = -1;
	return c;
}

wn_code engine_probe(char text[ENGINE_PROBE_SIZE], const blip2_config *shape, precision p, wn_error *err)
{
	const blip2_config c = narrowed(shape);
	const engine_options o = {.precision = p};
	blip2 *m = NULL;
	engine *e = NULL;
	wn_code rc = blip2_create(&m, &c, err);
	if (!rc)
		rc = engine_open(&e, m, &o, err);
	snprintf(text, ENGINE_PROBE_SIZE, "%s", rc ? "" : engine_describe(e));
	engine_close(&e);
	blip2_close(&m);
	return rc;
}
