/* report_text.c: the summary at the end of a run; see report.h. */
#include "load/report.h"

static const char *arrivals_name(const load_options *o)
{
	return o->arrivals == ARRIVALS_CONSTANT ? "constant" : "Poisson";
}

static void latency_line(FILE *f, const char *name, const latency_summary *l, const char *what)
{
	if (!l->count)
		return;
	fprintf(f, "%-12sp50 %s  p90 %s  p99 %s  p99.9 %s  max %s%s\n", name, report_ms(l->p50).s, report_ms(l->p90).s,
		report_ms(l->p99).s, report_ms(l->p999).s, report_ms(l->max).s, what);
}

static void trials_table(FILE *f, const trials *t)
{
	static const char *const RESULTS[] = {"met", "missed", "load generator too slow"};
	fprintf(f, "\n%10s  %8s  %9s  %14s  %s\n", "rate/s", "requests", "in target", "percentile", "");
	for (size_t i = 0; i < t->count; i++) {
		const trial *x = &t->items[i];
		fprintf(f, "%10.4g  %8zu  %7.2f %%  %14s  %s%s\n", x->rate, x->scheduled, 100 * x->good_share,
			report_ms(x->at_percentile_ms).s, RESULTS[x->result], x->given_up ? " (ended early)" : "");
	}
}

static void outcomes(FILE *f, const report *r)
{
	const run_stats *s = r->stats;
	for (int i = 0; i < s->num_outcomes; i++) {
		const outcome_row *row = &s->outcomes[i];
		const char *note = run_note(r->run, row->outcome);
		fprintf(f, "  %-22s %8zu  %6.2f %%  p50 %s  max %s%s%s\n", outcome_name(row->outcome).s,
			row->latency.count, 100 * (double)row->latency.count / (double)s->scheduled,
			report_ms(row->latency.p50).s, report_ms(row->latency.max).s, *note ? "  first: " : "", note);
	}
}

static void swaps(FILE *f, const report *r)
{
	const swap_log *l = &r->run->swaps;
	const swap_tally t = swap_log_tally(l);
	if (!l->count)
		return;
	fprintf(f, "swaps       %zu of %zu succeeded, ", t.good, l->count);
	if (t.changed)
		fprintf(f, "%zu changed the version that answers", t.changed);
	else
		fputs(t.unchanged ? "no change of the version that answers" : "what they changed is not known", f);
	if (t.changed + t.unchanged && t.changed + t.unchanged < t.good)
		fprintf(f, " (%zu not known)", t.good - t.changed - t.unchanged);
	fprintf(f, ", the longest took %s", report_ms(t.longest_ms).s);
	if (t.bad)
		fprintf(f, "; first refusal: %s %.80s", outcome_name(t.bad->outcome).s, t.bad->detail);
	fputs("\n", f);
	latency_line(f, "  during", &r->stats->during_swaps, "");
	latency_line(f, "  between", &r->stats->between_swaps, "");
}

static void known(FILE *f, const report *r)
{
	size_t versions;
	if (!r->known)
		return;
	const known_counts c = known_answers_total(r->known);
	known_answers_tallies(r->known, &versions);
	fprintf(f, "answers     %zu right, %zu wrong, %zu unknown, of %zu versions (all, the warm-up's too)\n", c.right,
		c.wrong, c.unknown, versions);
}

static void run_section(FILE *f, const report *r)
{
	const run_stats *s = r->stats;
	fprintf(f, "\nrequests    %zu due, %zu answered (2xx), %zu failed\n", s->scheduled, s->ok, s->failed);
	outcomes(f, r);
	fprintf(f, "rate        %.2f/s due, %.2f/s answered, %.2f/s within %g ms\n", s->scheduled_rate, s->ok_rate,
		s->good_rate, r->options->target_ms);
	latency_line(f, "latency", &s->answered, "   (2xx, from the scheduled time)");
	if (s->failed)
		latency_line(f, "  all", &s->every, "   (failures count as slower than any answer)");
	latency_line(f, "send lag", &s->send_lag, "   (scheduled to first byte sent)");
	fprintf(f,
		"generator   own lag p99 %s, loop busy %.1f %% of the time (%.1f %% of a processor), %llu connections "
		"made, %d at once\n",
		report_ms(s->own_lag.p99).s, 100 * r->run->busy_share, 100 * r->run->cpu_share,
		(unsigned long long)r->run->connections_made, r->run->most_connections);
	if (r->options->expect_labels && s->labels_right + s->labels_wrong)
		fprintf(f, "labels      %zu of %zu answers equal the ad's label (%.1f %%)\n", s->labels_right,
			s->labels_right + s->labels_wrong,
			100 * (double)s->labels_right / (double)(s->labels_right + s->labels_wrong));
	known(f, r);
	swaps(f, r);
}

void report_text(FILE *f, const report *r)
{
	const load_options *o = r->options;
	char conclusion[400];
	remarks notes;
	fprintf(f, "%s%s (%s): %zu ads as %s, %s arrivals", r->to->authority, r->to->path, r->reached->text, r->num_ads,
		o->format == FORMAT_JSON ? "json" : "multipart", arrivals_name(o));
	if (r->run)
		fprintf(f, " at %.4g/s, %.4g s measured after %.4g s", r->rate, r->stats->window_s,
			(double)r->run->measured_from_ns / 1e9);
	fprintf(f, ", seed %llu\n", (unsigned long long)o->seed);
	if (r->trials)
		trials_table(f, r->trials);
	if (r->run && r->stats->scheduled)
		run_section(f, r);
	report_remarks(r, &notes);
	for (int i = 0; i < notes.count; i++)
		fprintf(f, "note        %s\n", notes.lines[i]);
	report_conclusion(r, conclusion, sizeof conclusion);
	fprintf(f, "\n%s\n", conclusion);
}
