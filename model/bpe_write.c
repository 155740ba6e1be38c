/* bpe_write.c: writes tokenizer.json byte for byte as `tokenizers` saves the same tokenizer (serde_json, pretty), so a
 * trained file can be compared with the library's by cmp. */
#include "model/bpe_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

/* serde_json's escapes: the short forms, \u00xx for other controls, everything else as it is. */
static void put_string(FILE *f, const char *s, size_t len)
{
	putc('"', f);
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];
		const char *short_form = c == '"' ? "\\\"" : c == '\\' ? "\\\\" : c == '\n' ? "\\n" : c == '\r' ? "\\r" :
		                         c == '\t' ? "\\t" : c == '\b' ? "\\b" : c == '\f' ? "\\f" : NULL;
		if (short_form)
			fputs(short_form, f);
		else if (c < 0x20)
			fprintf(f, "\\u%04x", c);
		else
			putc(c, f);
	}
	putc('"', f);
}

static void put_entry(FILE *f, const intern *vocab, uint32_t id)
{
	put_string(f, intern_get(vocab, id), intern_len(vocab, id));
}

static void put_added_tokens(FILE *f, const bpe_trainer_options *opt)
{
	if (opt->num_special_tokens == 0) {
		fputs("  \"added_tokens\": [],\n", f);
		return;
	}
	fputs("  \"added_tokens\": [\n", f);
	for (size_t i = 0; i < opt->num_special_tokens; i++) {
		fprintf(f, "    {\n      \"id\": %zu,\n      \"content\": ", i);
		put_string(f, opt->special_tokens[i], strlen(opt->special_tokens[i]));
		fprintf(f,
		        ",\n      \"single_word\": false,\n      \"lstrip\": false,\n      \"rstrip\": false,\n"
		        "      \"normalized\": false,\n      \"special\": true\n    }%s\n",
		        i + 1 < opt->num_special_tokens ? "," : "");
	}
	fputs("  ],\n", f);
}

static void put_template_piece(FILE *f, const char *kind, const char *id, int type_id, bool last)
{
	fprintf(f, "      {\n        \"%s\": {\n          \"id\": ", kind);
	put_string(f, id, strlen(id));
	fprintf(f, ",\n          \"type_id\": %d\n        }\n      }%s\n", type_id, last ? "" : ",");
}

/* With bos_token what transformers' GPT-2/OPT converter writes; without, a ByteLevel that changes no ids. */
static void put_post_processor(FILE *f, const intern *vocab, const char *bos)
{
	if (!bos) {
		fputs("  \"post_processor\": {\n    \"type\": \"ByteLevel\",\n    \"add_prefix_space\": true,\n"
		      "    \"trim_offsets\": false,\n    \"use_regex\": true\n  },\n",
		      f);
		return;
	}
	fputs("  \"post_processor\": {\n    \"type\": \"TemplateProcessing\",\n    \"single\": [\n", f);
	put_template_piece(f, "SpecialToken", bos, 0, false);
	put_template_piece(f, "Sequence", "A", 0, true);
	fputs("    ],\n    \"pair\": [\n", f);
	put_template_piece(f, "SpecialToken", bos, 0, false);
	put_template_piece(f, "Sequence", "A", 0, false);
	put_template_piece(f, "Sequence", "B", 1, true);
	fputs("    ],\n    \"special_tokens\": {\n      ", f);
	put_string(f, bos, strlen(bos));
	fputs(": {\n        \"id\": ", f);
	put_string(f, bos, strlen(bos));
	fprintf(f, ",\n        \"ids\": [\n          %u\n        ],\n        \"tokens\": [\n          ",
	        intern_find(vocab, bos, strlen(bos)));
	put_string(f, bos, strlen(bos));
	fputs("\n        ]\n      }\n    }\n  },\n", f);
}

static void put_model(FILE *f, const intern *vocab, const bpe_pair *merges, size_t num_merges)
{
	fputs("  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n"
	      "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n"
	      "    \"byte_fallback\": false,\n    \"ignore_merges\": false,\n    \"vocab\": {\n",
	      f);
	for (uint32_t id = 0; id < vocab->count; id++) {
		fputs("      ", f);
		put_entry(f, vocab, id);
		fprintf(f, ": %u%s\n", id, id + 1 < vocab->count ? "," : "");
	}
	fputs(num_merges ? "    },\n    \"merges\": [\n" : "    },\n    \"merges\": []\n", f);
	for (size_t i = 0; i < num_merges; i++) {
		fputs("      [\n        ", f);
		put_entry(f, vocab, merges[i].left);
		fputs(",\n        ", f);
		put_entry(f, vocab, merges[i].right);
		fprintf(f, "\n      ]%s\n", i + 1 < num_merges ? "," : "\n    ]");
	}
	fputs("  }\n}", f);
}

wn_code bpe_write_json(const char *path, const intern *vocab, const bpe_pair *merges, size_t num_merges,
                       const bpe_trainer_options *opt, wn_error *err)
{
	char *json = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&json, &len);
	if (!f)
		return wn_fail(err, WN_NOMEM, "%s: out of memory", path);
	fputs("{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n", f);
	put_added_tokens(f, opt);
	fputs("  \"normalizer\": null,\n  \"pre_tokenizer\": {\n    \"type\": \"ByteLevel\",\n"
	      "    \"add_prefix_space\": false,\n    \"trim_offsets\": true,\n    \"use_regex\": true\n  },\n",
	      f);
	put_post_processor(f, vocab, opt->bos_token);
	fputs("  \"decoder\": {\n    \"type\": \"ByteLevel\",\n    \"add_prefix_space\": true,\n"
	      "    \"trim_offsets\": true,\n    \"use_regex\": true\n  },\n",
	      f);
	put_model(f, vocab, merges, num_merges);
	/* A stream remembers a failed write (here: no memory), so one look at the end sees them all. */
	bool bad = ferror(f);
	bad |= fclose(f) != 0;
	wn_code rc = bad ? wn_fail(err, WN_NOMEM, "%s: out of memory", path) : file_write_atomic(path, json, len, err);
	free(json);
	return rc;
}
