"""cases/*.json: requests that must be refused, each with its exact answer."""
import glob
import json
import os
import re

from server_process import FILES, HERE, check, multipart, read_file, same


def read_cases():
    """[(file name, case)], in the order of names."""
    paths = sorted(glob.glob(os.path.join(HERE, "cases", "*.json")))
    check(len(paths) > 50)
    out = []
    for path in paths:
        with open(path, encoding="utf-8") as f:
            out.append((os.path.basename(path), json.load(f)))
    return out


def case_body(r):
    if r.get("no_body"):
        return None, {}
    if "multipart" in r:
        fields = []
        for p in r["multipart"]:
            value = (read_file(FILES, p["file"]) if "file" in p else bytes.fromhex(p["hex"]) if "hex" in p
                     else p["repeat"][0] * p["repeat"][1] if "repeat" in p else p["text"])
            fields.append((p["name"], value))
        body, kind = multipart(fields)
        return body, {"Content-Type": kind}
    if "body_hex" in r:
        return bytes.fromhex(r["body_hex"]), {}
    body = r["body"]
    if isinstance(body, dict):
        pieces = body["repeat"]
        body = "".join(s * n for s, n in zip(pieces[::2], pieces[1::2]))
    return body.encode(), {}


def run_case(server, case, headers=None):
    """headers: further ones, which the case's own replace."""
    r, e = case["request"], case["expect"]
    body, kind = case_body(r)
    headers = {**(headers or {}), **kind, **r.get("headers", {})}
    status, got, text = server.request(r.get("method", "POST"), r.get("path", "/v1/audit"), body, headers, r.get("chunked"))
    same(status, e["status"], text)
    document = json.loads(text)
    same(document["reason"], e["reason"], "reason")
    same(got["x-request-id"], document["request_id"], "X-Request-Id")
    for k, v in e.get("headers", {}).items():
        same(got.get(k.lower()), v, k)
    check(not re.search(rb"/proc/|/tmp/|0x[0-9a-f]{6}", text), f"says too much: {text}")
    if "v2_error" in e:
        same(got["content-type"], "application/json", "Content-Type")
        same(document["error"], e["v2_error"], "error")
        return
    same(got["content-type"], "application/problem+json", "Content-Type")
    same(sorted(document), ["detail", "reason", "request_id", "status", "title", "type"], "members")
    same(document["status"], e["status"], "status")
    same(document["type"], "urn:winnow:problem:" + e["reason"], "type")
    if "detail" in e:
        same(document["detail"], e["detail"], "detail")
    else:
        check(e["detail_contains"] in document["detail"], f"detail: {document['detail']}")
