"""A strict reader of Prometheus' text format 0.0.4: parse(text) gives {series: value}, or raises ValueError with the line.

Stricter than a scraper: every family has HELP and TYPE, once and first; its samples stand together; no series comes twice;
counters end in _total; histograms are complete, cumulative and end in +Inf, which is their count.
"""
import math
import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"'
SAMPLE = re.compile(rf"^({NAME})(?:\{{((?:{LABEL})(?:,(?:{LABEL}))*)?\}})? (\S+)$")
TYPES = ("counter", "gauge", "histogram", "summary", "untyped")


def number(text):
    special = {"+Inf": math.inf, "-Inf": -math.inf, "NaN": math.nan}
    if text in special:
        return special[text]
    if not re.fullmatch(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", text):
        raise ValueError("not a number: " + text)
    return float(text)


def family_of(name, families):
    for suffix in ("_bucket", "_sum", "_count"):
        base = name[:-len(suffix)] if name.endswith(suffix) else None
        if base in families and families[base]["type"] == "histogram":
            return base
    return name


def parse(text):
    if not text.endswith("\n"):
        raise ValueError("the last line has no end")
    families, values, closed, current = {}, {}, set(), None

    def enter(name):
        nonlocal current
        if name != current:
            if name in closed:
                raise ValueError(f"family {name} is in two pieces")
            if current:
                closed.add(current)
            current = name
    for line in text.split("\n")[:-1]:
        try:
            m = re.fullmatch(rf"# (HELP|TYPE) ({NAME}) (.*)", line)
            if m:
                kind, name, rest = m.groups()
                enter(name)
                f = families.setdefault(name, {"samples": []})
                if kind.lower() in f or f["samples"]:
                    raise ValueError(f"{kind} of {name} comes twice, or after its samples")
                if kind == "TYPE" and rest not in TYPES:
                    raise ValueError("unknown type " + rest)
                if kind == "HELP" and not rest.strip():
                    raise ValueError("empty help")
                f[kind.lower()] = rest
                continue
            m = SAMPLE.match(line)
            if not m:
                raise ValueError("neither a comment nor a sample")
            name, labels, value = m.group(1), re.findall(LABEL, m.group(2) or ""), number(m.group(m.lastindex))
            base = family_of(name, families)
            f = families.get(base)
            if not f or "help" not in f or "type" not in f:
                raise ValueError(f"no HELP and TYPE before {name}")
            enter(base)
            if len({k for k, _ in labels}) != len(labels):
                raise ValueError("a label comes twice")
            key = name + ("{" + ",".join(f'{k}="{v}"' for k, v in labels) + "}" if labels else "")
            if (name, frozenset(labels)) in {(n, frozenset(ls)) for n, ls, _ in f["samples"]}:
                raise ValueError("the series comes twice")
            if f["type"] == "counter" and not (name.endswith("_total") and value >= 0):
                raise ValueError("a counter must end in _total and not be negative")
            f["samples"].append((name, tuple(labels), value))
            values[key] = value
        except ValueError as e:
            raise ValueError(f"{e}: {line}") from None
    for name, f in families.items():
        if f.get("type") == "histogram":
            check_histogram(name, f["samples"])
    return values


def check_histogram(name, samples):
    series = {}
    for n, labels, value in samples:
        rest = tuple(x for x in labels if x[0] != "le")
        s = series.setdefault(rest, {"buckets": [], "sum": None, "count": None})
        if n == name + "_bucket":
            s["buckets"].append((number(dict(labels)["le"]), value))
        elif n in (name + "_sum", name + "_count"):
            s[n[len(name) + 1:]] = value
        else:
            raise ValueError(f"{n} has no place in the histogram {name}")
    for labels, s in series.items():
        edges, counts = [e for e, _ in s["buckets"]], [c for _, c in s["buckets"]]
        if edges != sorted(set(edges)) or not edges or edges[-1] != math.inf:
            raise ValueError(f"{name}{labels}: the edges do not ascend to +Inf")
        if counts != sorted(counts) or s["count"] != counts[-1] or s["sum"] is None:
            raise ValueError(f"{name}{labels}: the buckets are not cumulative up to the count, or there is no sum")
