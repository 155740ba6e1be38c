/* A run directory (fuzz_files.h's bundle) that `winnow-prune report` makes a page of. */
#include "fuzz_files.h"
#include "prune/report/report.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const FILES[] = {"manifest.json", "log.jsonl", "plan.json", "ablation.json", NULL};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const energy_assumptions energy = ENERGY_DEFAULTS;
	wn_error err = {0};
	run r;
	char *page = NULL;
	size_t len = 0;
	fuzz_bundle(data, size, FILES);
	wn_code rc = run_open(&r, fuzz_dir(), &err);
	if (rc == WN_OK)
		rc = report_make(&page, &len, &r, &energy, &err);
	if (rc == WN_OK ? !page || strlen(page) != len : !*err.message)
		abort();
	free(page);
	run_close(&r);
	return 0;
}
