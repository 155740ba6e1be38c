"""From finished runs to RUN/ablation.json (docs/report.md has its format) and RUN/ablation.md.

Mean and standard deviation (of n - 1) over seeds. A difference of not more than two standard errors is called noise, as on the
report's page (prune/report/section_ablation.c)."""
import json
import math
import os


def mean_sd(values):
    """(mean, sd); None for what the values do not say."""
    if not values:
        return None, None
    mean = sum(values) / len(values)
    sd = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else None
    return mean, sd


def verdict(first, other):
    (a, sd_a), (b, sd_b) = mean_sd(first), mean_sd(other)
    if sd_a is None or sd_b is None:
        return "too few seeds to tell"
    noise = 2 * math.sqrt(sd_a ** 2 / len(first) + sd_b ** 2 / len(other))
    return "worse" if b - a < -noise else "better" if b - a > noise else "within the noise"


def text_mean_sd(values):
    mean, sd = mean_sd(values)
    if mean is None:
        return "–"
    return f"{100 * mean:.2f}" + (f" ± {100 * sd:.2f}" if sd is not None else "")


def text_difference(first, other):
    if not first or not other:
        return ""
    return f"{100 * (mean_sd(other)[0] - mean_sd(first)[0]):+.2f}"


def values(row, key):
    return [run[key] for run in row["runs"] if run[key] is not None]


def markdown_row(row, first):
    accuracy, f1 = values(row, "accuracy"), values(row, "macro_f1")
    cells = [row["name"], str(len(row["runs"])), text_mean_sd(accuracy), "", text_mean_sd(f1), "", ""]
    if row is not first:
        cells[3] = text_difference(values(first, "accuracy"), accuracy)
        cells[5] = text_difference(values(first, "macro_f1"), f1)
        cells[6] = verdict(values(first, "accuracy"), accuracy)
    return "| " + " | ".join(cells) + " |"


def markdown(rows, about, failures):
    """rows: as in ablation.json; about: one line on what they have in common; failures: [(what, why)]."""
    lines = [about, "",
             "| | seeds | accuracy, % | difference | macro-F1, % | difference | accuracy is |",
             "|---|---|---|---|---|---|---|"]
    lines += [markdown_row(row, rows[0]) for row in rows]
    lines += ["", "Mean ± standard deviation over seeds; differences in points, to the first row. Within the noise: not more than two "
                  "standard errors of the difference."]
    if failures:
        lines += ["", "Failed:", ""] + [f"- {what}: {why}" for what, why in failures]
    return "\n".join(lines) + "\n"


def write_atomic(path, text):
    with open(path + ".writing", "w", encoding="utf-8") as f:
        f.write(text)
    os.rename(path + ".writing", path)


def write(directory, rows, about, failures):
    text = markdown(rows, about, failures)
    write_atomic(os.path.join(directory, "ablation.json"), json.dumps({"rows": rows}, ensure_ascii=False, indent=1) + "\n")
    write_atomic(os.path.join(directory, "ablation.md"), text)
    return text
