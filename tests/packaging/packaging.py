#!/usr/bin/env python3
"""What an installation, the service, the image and the cluster's manifests say, held against the program: paths and options exist, and
winnow-serve accepts the configuration they give it.

  packaging.py --build BUILDDIR --serve PATH/winnow-serve --prune PATH/winnow-prune [--only NAME]

Standard library; with PyYAML the manifests are read, without it they are not tried.
"""
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "..", ".."))
sys.path.insert(0, os.path.join(HERE, "..", "server"))
from server_process import BUNDLED, RUN, Server, check, log, read_file, run_failing, run_tests, same, wait_for  # noqa: E402

try:
    import yaml
except ImportError:
    yaml = None

OVERTIME_S = 5  # of a server whose drain.timeout is over
KEYS = {r: f"{r}-1 {r}-key-0123456789\n" for r in ("inference", "metrics", "admin")}


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8", opener=lambda p, flags: os.open(p, flags, 0o600)) as f:
        f.write(text)


def read(*path):
    return read_file(ROOT, *path).decode()


def write_keys(directory):
    for role, line in KEYS.items():
        write(os.path.join(directory, role + ".keys"), line)


def accepted(what, arguments, **kwargs):
    code, text = run_failing(*arguments, "--check-config", **kwargs)
    same((code, text), (0, ""), what)


def seconds(text):
    value, unit = re.fullmatch(r"(\d+)(s|m)?", str(text)).groups()
    return int(value) * (60 if unit == "m" else 1)


# ---- meson install ----


def installed():
    """DESTDIR of an installation, and the prefix in it."""
    destdir = os.path.join(RUN.work, "destdir")
    if not os.path.exists(destdir):
        subprocess.run(["meson", "install", "-C", RUN.build, "--no-rebuild", "--destdir", destdir], check=True, capture_output=True)
    with open(os.path.join(RUN.build, "meson-info", "intro-buildoptions.json"), encoding="utf-8") as f:
        options = {o["name"]: o["value"] for o in json.load(f)}
    return destdir, options


def unit_of(destdir, options):
    path = os.path.join(destdir + options["prefix"], options["systemd_unit_dir"], "winnow-serve.service")
    with open(path, encoding="utf-8") as f:
        return path, f.read().replace("\\\n", " ")


def test_an_installation_is_whole():
    destdir, options = installed()
    prefix = destdir + options["prefix"]
    for program in ("winnow-serve", "winnow-prune", "winnow-load"):
        out = subprocess.run([os.path.join(prefix, options["bindir"], program), "--help"], capture_output=True, check=True)
        check(program.encode() in out.stdout, out.stdout)
    same(read_file(prefix, options["datadir"], "winnow", "serve.yaml").decode(), read("configs", "serve.yaml"), "serve.yaml")


def test_the_unit_starts_what_is_installed():
    destdir, options = installed()
    if not options["systemd_unit_dir"]:
        return log("     systemd_unit_dir is empty: not tried")
    path, unit = unit_of(destdir, options)
    check(not re.search(r"@\w+@", unit), "a name that was not filled in: " + unit)
    command = shlex.split(re.search(r"^ExecStart=(.*)$", unit, re.M).group(1))
    same(command[0], os.path.join(options["prefix"], options["bindir"], "winnow-serve"), "ExecStart")
    check(os.access(destdir + command[0], os.X_OK), command[0])
    # Credentials, state and configuration as systemd and an administrator would put them there.
    there = os.path.join(RUN.work, "service")
    given = set(re.findall(r"^LoadCredential=(\S+?):", unit, re.M))
    same(given, {r + ".keys" for r in KEYS}, "credentials")
    write_keys(there + "/credentials")
    shutil.copytree(BUNDLED, there + "/state/winnow/registry")
    shutil.copy(os.path.join(destdir + options["prefix"], options["datadir"], "winnow", "serve.yaml"), there)
    places = {"%d": there + "/credentials", "%S": there + "/state", "/etc/winnow": there}
    arguments = [re.sub("|".join(places), lambda m: places[m.group()], a) for a in command[1:]]
    check(not any("%" in a for a in arguments), arguments)
    accepted("the unit's command", arguments)
    stop = seconds(re.search(r"^TimeoutStopSec=(\S+)", unit, re.M).group(1))
    check(stop >= 20 + OVERTIME_S, "TimeoutStopSec and drain.timeout")
    check("\nRestartPreventExitStatus=2\n" in unit, "a mistake in the configuration is not to be tried again")
    # What systemd itself says of it, with the program where it is; it speaks of this machine's other units too.
    if not shutil.which("systemd-analyze"):
        return log("     no systemd-analyze: not tried")
    copy = os.path.join(RUN.work, os.path.basename(path))
    write(copy, unit.replace(command[0], destdir + command[0]))
    out = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True)
    same([line for line in out.stderr.decode().splitlines() if "winnow" in line], [], "systemd-analyze verify")
    return None


# ---- the image ----


def dockerfile(word):
    found = re.findall(rf"^{word} (.*)$", read("docker", "Dockerfile"), re.M)
    same(len(found), 1, word)
    return found[0]


def test_the_image_starts_and_is_healthy():
    entry = json.loads(dockerfile("ENTRYPOINT"))
    same(entry[0], "/usr/bin/winnow-serve", "ENTRYPOINT")
    arguments = [BUNDLED if a == "/registry" else a for a in entry[1:]]
    same(run_failing(*arguments, "--check-config")[0], 2, "without a key")
    accepted("ENTRYPOINT", arguments, env={"WINNOW_INFERENCE_KEY": "inference-key-0123456789"})
    health = json.loads(dockerfile("HEALTHCHECK").partition("CMD ")[2])

    def healthy(port):
        return subprocess.run([a.replace("/8080", f"/{port}") for a in health], capture_output=True, timeout=20).returncode == 0
    server = Server("drain.delay=1h", registry=BUNDLED, name="ad-audit")
    try:
        check(healthy(server.port), "HEALTHCHECK of a server that is well")
        server.process.terminate()
        wait_for(lambda: not healthy(server.port), what="HEALTHCHECK of one that is going")
        same(server.request("GET", "/v2/health/live")[0], 200, "it is there still")
    finally:
        server.process.kill()
        server.process.wait()
    check(not healthy(server.port), "HEALTHCHECK of none")


def test_compose():
    if not yaml:
        return log("     no PyYAML: not tried")
    service = yaml.safe_load(read("docker", "compose.yaml"))["services"]["winnow"]
    env = {name: "key-of-" + name for name in service["environment"]}
    same(set(env), {f"WINNOW_{r.upper()}_KEY" for r in KEYS}, "keys")
    arguments = [BUNDLED if a == "/registry" else a for a in json.loads(dockerfile("ENTRYPOINT"))[1:]] + service["command"]
    accepted("compose.yaml", arguments, env=env)
    drain = dict(re.findall(r"drain\.(\w+)=(\S+)", " ".join(service["command"])))
    check(seconds(service["stop_grace_period"]) > seconds(drain["delay"]) + seconds(drain["timeout"]) + OVERTIME_S, "stop_grace_period")
    return None


# ---- the cluster ----


def manifests(name):
    return {m["kind"]: m for m in yaml.safe_load_all(read("docker", "kubernetes", name))}


def test_kubernetes():
    if not yaml:
        return log("     no PyYAML: not tried")
    m = manifests("winnow.yaml")
    same(set(m), {"ConfigMap", "Deployment", "Service"}, "kinds")
    pod = m["Deployment"]["spec"]["template"]["spec"]
    container, = pod["containers"]
    # The configuration, with its directories in another place.
    there = os.path.join(RUN.work, "pod")
    mounts = {v["mountPath"] for v in container["volumeMounts"]}
    same(mounts, {"/etc/winnow", "/etc/winnow-keys"}, "mounts")
    write_keys(there + "/etc/winnow-keys")
    text = m["ConfigMap"]["data"]["serve.yaml"]
    write(there + "/etc/winnow/serve.yaml", text.replace("/etc/", there + "/etc/").replace(" /registry", " " + BUNDLED))
    accepted("kubernetes/winnow.yaml", [a.replace("/etc/", there + "/etc/") for a in container["command"][1:]])
    config = yaml.safe_load(text)
    # Ports, probes and times fit it.
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    same(ports, {"http": config["listen"]["port"], "admin": config["admin"]["port"]}, "ports")
    same(m["Service"]["spec"]["ports"][0]["targetPort"], "http", "targetPort")
    same(m["Service"]["spec"]["selector"], m["Deployment"]["spec"]["template"]["metadata"]["labels"], "selector")
    for probe, path in (("startupProbe", "ready"), ("livenessProbe", "live"), ("readinessProbe", "ready")):
        same(container[probe]["httpGet"], {"path": "/v2/health/" + path, "port": "admin"}, probe)
    delay, timeout = (seconds(config["drain"][k]) for k in ("delay", "timeout"))
    ready = container["readinessProbe"]
    check(delay > ready["periodSeconds"] * ready["failureThreshold"], "drain.delay is over before the probe has noticed")
    check(pod["terminationGracePeriodSeconds"] > delay + timeout + OVERTIME_S, "terminationGracePeriodSeconds")
    for name in ("hpa-cpu.yaml", "hpa-queue.yaml"):
        hpa = manifests(name)["HorizontalPodAutoscaler"]["spec"]
        same(hpa["scaleTargetRef"]["name"], m["Deployment"]["metadata"]["name"], name)
    metric = hpa["metrics"][0]["pods"]["metric"]["name"]
    check(f"`{metric}`" in read("docs", "server.md"), metric)
    return None


if __name__ == "__main__":
    at = sys.argv.index("--build")
    RUN.build = sys.argv[at + 1]
    del sys.argv[at:at + 2]
    run_tests(globals(), lambda: None)
