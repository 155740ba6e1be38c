"""Ways to spoil a model directory, and the step of loading at which winnow-serve must notice each."""
import hashlib
import json
import os


def sha256(path):
    with open(path, "rb") as f:
        return "sha256:" + hashlib.sha256(f.read()).hexdigest()


def edit_manifest(directory, edit):
    path = os.path.join(directory, "winnow.json")
    with open(path, encoding="utf-8") as f:
        manifest = json.load(f)
    edit(manifest)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(manifest, f, ensure_ascii=False)


def redigest(directory):
    """winnow.json says what the files are now: the publisher itself was wrong."""
    def edit(manifest):
        for name in manifest.get("files", {}):
            manifest["files"][name] = sha256(os.path.join(directory, name))
    edit_manifest(directory, edit)


def truncate(directory):
    path = os.path.join(directory, "model.safetensors")
    os.truncate(path, os.path.getsize(path) // 2)


def flip_a_bit(directory):
    with open(os.path.join(directory, "model.safetensors"), "r+b") as f:
        f.seek(-3, os.SEEK_END)
        byte = f.read(1)[0]
        f.seek(-3, os.SEEK_END)
        f.write(bytes([byte ^ 1]))


def wrong_shape(directory):
    path = os.path.join(directory, "config.json")
    with open(path, encoding="utf-8") as f:
        config = json.load(f)
    config["vision_config"]["intermediate_size"] += 8
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config, f)
    redigest(directory)


def cut_but_digests_fit(directory):
    truncate(directory)
    redigest(directory)


def not_a_number(directory):
    path = os.path.join(directory, "model.safetensors")
    with open(path, "r+b") as f:
        f.seek(-4, os.SEEK_END)
        f.write(b"\x00\x00\xc0\x7f")
    redigest(directory)


def wrong_self_test(directory):
    def edit(manifest):
        p = manifest["self_test"]["probabilities"]
        p[0], p[1] = p[1] + 0.05, p[0] - 0.05
        total = sum(max(x, 0) for x in p)
        manifest["self_test"]["probabilities"] = [max(x, 0) / total for x in p]
    edit_manifest(directory, edit)


def no_json(directory):
    with open(os.path.join(directory, "winnow.json"), "w", encoding="utf-8") as f:
        f.write('{"format": 1, "name": "tiny"')


def names_no_files(directory):
    edit_manifest(directory, lambda m: m.pop("files"))


# Each with the reason that counts it in winnow_model_load_failures_total.
SPOILED = [(truncate, "digests"), (flip_a_bit, "digests"), (wrong_shape, "content"), (cut_but_digests_fit, "content"),
           (not_a_number, "content"), (wrong_self_test, "self_test"), (no_json, "content"), (names_no_files, "digests")]
