"""Where and with what the figures were made."""
import datetime
import os
import platform
import subprocess

SPIN_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
BUSY = 0.5          # processors that others use


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        return next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), platform.machine())


def memory_gib():
    with open("/proc/meminfo", encoding="ascii") as f:
        return int(f.readline().split()[1]) / (1 << 20)


def commit():
    """Of this repository, "+" when files of it are changed; "" without git."""
    here = os.path.dirname(os.path.realpath(__file__))
    try:
        done = subprocess.run(["git", "-C", here, "describe", "--always", "--dirty=+", "--exclude=*"], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def describe():
    return {"date": datetime.date.today().isoformat(), "cpu": cpu_model(), "processors": len(os.sched_getaffinity(0)),
            "memory_gib": round(memory_gib(), 1), "kernel": platform.release(), "load": os.getloadavg()[0], "commit": commit()}


def warnings(machine):
    """Why figures would not be worth much."""
    said = [f"{name}={os.environ[name]} is set: it slows some of the variants" for name in SPIN_VARIABLES if name in os.environ]
    if machine["load"] > BUSY:
        said.append(f"the machine is busy (load {machine['load']:.1f}): these are no figures to keep")
    return said
