"""The session's figures, as JSON and as a Markdown table.

    median      of the turns' medians
    p99         the largest of the turns' p99 (with fewer than 100 requests a turn: the slowest request of all)
    of peak     GFLOP/s by the median, over the median of the matmul peaks that `winnow-prune bench` measured behind its turns
    times as fast as X      X's median over the row's; in brackets the least and the largest of the same ratio in a round
"""
import statistics

from . import variants


def medians(contender):
    return {turn["round"]: turn["median_ms"] for turn in contender.turns}


def times_as_fast(contender, other):
    own, others = medians(contender), medians(other)
    rounds = [others[r] / own[r] for r in own if r in others]
    return {"ratio": statistics.median(others.values()) / statistics.median(own.values()), "least": min(rounds), "most": max(rounds)}


def baselines(contenders):
    """[(what, contender)]: the fastest of each kind that was timed."""
    found = []
    for what, family, precision in variants.BASELINES:
        kind = [c for c in contenders if (c.variant.family, c.variant.precision) == (family, precision)]
        if kind:
            found.append((what, min(kind, key=lambda c: statistics.median(medians(c).values()))))
    return found


def row(contender, flops, compared):
    median = statistics.median(medians(contender).values())
    gflops = 1e-6 * flops / median
    peaks = [turn["peak_gflops"] for turn in contender.turns if "peak_gflops" in turn]
    return {"median_ms": median, "p99_ms": max(t["p99_ms"] for t in contender.turns), "min_ms": min(t["min_ms"] for t in contender.turns),
            "gflops": gflops, "percent_of_peak": 100 * gflops / statistics.median(peaks) if peaks else None,
            "times_as_fast": {other.name: times_as_fast(contender, other) for _, other in compared}}


def results(contenders, flops):
    """What goes into the JSON file, a variant each."""
    timed = [c for c in contenders if c.turns and not c.failed]
    compared = baselines(timed)
    return [{"name": c.name, "title": c.variant.title, "precision": c.variant.precision, "failed": c.failed, "unavailable": c.missing,
             "choices": c.choices, "remarks": c.remarks, "versions": c.versions, "cosine": c.cosine, "peak_rss_bytes": c.rss,
             "resident": c.resident, "turns": c.turns, **(row(c, flops, compared) if c in timed else {})} for c in contenders]


def ms(value):
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.4f}"


def optional(template, value):
    return "–" if value is None else template.format(value)


def markdown_row(r, compared):
    cells = [r["title"] + (f" ({r['choices']})" if r["choices"] else ""), ms(r["median_ms"]), ms(r["p99_ms"]), ms(r["min_ms"]),
             f"{r['gflops']:.3g}", optional("{:.0f} %", r["percent_of_peak"]), optional("{:.5f}", r["cosine"]),
             optional("{:.2f} GB", r["peak_rss_bytes"] and 1e-9 * r["peak_rss_bytes"])]
    for other in compared:
        ratio = r["times_as_fast"][other]
        cells.append("1" if other == r["name"] else f"{ratio['ratio']:.2f} ({ratio['least']:.2f}–{ratio['most']:.2f})")
    return "| " + " | ".join(cells) + " |"


def header(compared):
    """compared: [(what, name)]"""
    words = ["", "median, ms", "p99", "min", "GFLOP/s", "of peak", "cosine", "peak RSS"]
    words += [f"× {what}" + (f" ({name})" if name.startswith("ort-int8") else "") for what, name in compared]
    return ["| " + " | ".join(words) + " |", "|" + "---|" * len(words)]


def about(report):
    m, versions = report["machine"], {}
    for variant in report["variants"]:
        versions.update(variant["versions"])
    return [f"{report['scale']}: {report['parameters'] / 1e6:.4g} M parameters, {1e-9 * report['flops']:.4g} GFLOP a request of one image "
            f"and {report['tokens']} text tokens (logits of the last position), {report['threads']} threads. {report['rounds']} rounds, "
            f"{report['requests']} requests a turn.",
            f"{m['date']}, {m['cpu']}, {m['processors']} processors, {m['memory_gib']} GiB, Linux {m['kernel']}; winnow {m['commit']}, "
            + ", ".join(f"{what} {version}" for what, version in versions.items()) + "."]


def remarks(report):
    said = [f"- {line}" for line in report["warnings"]]
    for v in report["variants"]:
        if v["failed"]:
            said.append(f"- failed: {v['failed']}")
        if v["unavailable"]:
            said.append(f"- {v['name']} is not to be had here: {v['unavailable']}")
        said += [f"- {v['name']}: {line}" for line in v["remarks"]]
    return said


def markdown(report):
    rows = [v for v in report["variants"] if "median_ms" in v]
    titles = {(family, precision): what for what, family, precision in variants.BASELINES}
    family = {v.name: (v.family, v.precision) for v in variants.VARIANTS}
    compared = list(rows[0]["times_as_fast"]) if rows else []
    lines = about(report) + [""]
    if rows:
        lines += header([(titles[family[name]], name) for name in compared])
        lines += [markdown_row(r, compared) for r in sorted(rows, key=lambda r: r["median_ms"])]
        lines += ["", "×: times as fast as that (least–most of a round). Cosine: of the logits, to PyTorch's f32."]
    return "\n".join(lines + remarks(report)) + "\n"
