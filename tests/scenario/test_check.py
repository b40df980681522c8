"""`windrow check` and `windrow keys`: what they say, as text and as JSON, and their exit status."""
import json
import os
import re
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WINDROW = os.path.join(os.environ.get("WINDROW_BUILD_DIR", os.path.join(ROOT, "build", "unit")),
                       "windrow")
DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "broken_configurations.txt")


def windrow(*words, cwd=None):
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("CREDENTIALS_DIRECTORY", "WINDROW_PROFILES")}
    return subprocess.run([WINDROW, *words], cwd=cwd, env=environment, capture_output=True,
                          text=True, timeout=90, check=False)


def read_cases():
    """[(name, {path: (mode, bytes)}, [expected line])] of the data file."""
    cases = []
    for part in re.split(r"^=== ", open(DATA, encoding="utf-8").read(), flags=re.M)[1:]:
        name, _, rest = part.partition("\n")
        path, mode, files, expected = "windrow.ini", 0o644, {}, []
        for line in rest.split("\n"):
            if line.startswith("+++ "):
                words = line.split()
                path, mode = words[1], int(words[2], 8) if len(words) > 2 else 0o644
            elif line.startswith(">>> "):
                expected.append(line[4:])
            elif not expected:
                raw = re.sub(rb"\\x(..)", lambda found: bytes.fromhex(found[1].decode()),
                             line.encode() + b"\n")
                files[path] = (mode, files.get(path, (0, b""))[1] + raw)
        cases.append((name, files, expected))
    return cases


CASES = read_cases()


def write(folder, files):
    for path, (mode, content) in files.items():
        target = folder / path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
        target.chmod(mode)


def as_pattern(expected):
    return ".*".join(re.escape(part) for part in expected.split("..."))


def test_there_are_enough():
    assert len(CASES) >= 60
    assert len({name for name, _, _ in CASES}) == len(CASES)


@pytest.mark.parametrize("files, expected", [case[1:] for case in CASES],
                         ids=[case[0] for case in CASES])
def test_broken_configuration(tmp_path, files, expected):
    write(tmp_path, files)
    result = windrow("check", "windrow.ini", cwd=tmp_path)
    said = [line for line in result.stdout.splitlines() if "warning: " not in line]
    assert result.returncode == 2
    assert len(said) == len(expected), said
    for line, pattern in zip(said, map(as_pattern, expected)):
        assert re.fullmatch(pattern, line), line


def test_json_of_errors(tmp_path):
    (tmp_path / "w.ini").write_text("[gateway]\nnmae = x\n[api]\nlisten = 127.0.0.1\n")
    result = windrow("check", "--json", "-c", str(tmp_path / "w.ini"))
    report = json.loads(result.stdout)
    assert result.returncode == 2 and report["good"] is False
    assert [(one["line"], one["section"], one["key"]) for one in report["errors"]] == [
        (2, "gateway", "nmae"), (4, "api", "listen")]
    assert report["errors"][0]["nearest"] == "name"
    assert report["errors"][0]["file"] == str(tmp_path / "w.ini")


GOOD = """
[device t{01..24}]
driver = modbus-tcp
address = 10.1.0.{11..34}:502
profile = demo-turbine
tag.type = V90
[uplink cloud]
type = http
url = https://127.0.0.1:8443/v1/readings
[aggregate scada]
"""


def test_good(tmp_path):
    (tmp_path / "w.ini").write_text(GOOD)
    result = windrow("check", str(tmp_path / "w.ini"))
    assert result.returncode == 0, result.stdout
    assert result.stdout.endswith("w.ini: good: 24 devices, 192 points, 1 uplinks\n")
    report = json.loads(windrow("check", "--json", str(tmp_path / "w.ini")).stdout)
    assert report["good"] and not report["errors"]
    assert (report["devices"], report["points"], report["uplinks"]) == (24, 192, 1)
    assert report["readings_s"] == pytest.approx(192)
    assert report["buffer_days"] > 0


def test_plan(tmp_path):
    (tmp_path / "w.ini").write_text(GOOD)
    text = windrow("check", "--plan", str(tmp_path / "w.ini")).stdout
    assert "\nt24 (modbus-tcp, every 1 s)\n" in text
    assert "192.0 readings/s" in text
    plan = json.loads(windrow("check", "--plan", "--json", str(tmp_path / "w.ini")).stdout)["plan"]
    assert [one["device"] for one in plan][:2] == ["t01", "t02"]
    assert len(plan) == 24 and all(one["requests"] for one in plan)


def test_missing_file(tmp_path):
    result = windrow("check", str(tmp_path / "none.ini"))
    assert result.returncode == 2
    assert result.stdout.endswith("none.ini: cannot be read: No such file or directory\n")


def test_empty_file(tmp_path):
    path = tmp_path / "windrow.ini"
    path.write_text("")
    result = windrow("check", str(path))
    assert result.returncode == 2
    assert "windrow.ini: is empty; is it being written?\n" in result.stdout


def test_shipped_files_are_good():
    example = os.path.join(ROOT, "config", "windrow.ini.example")
    assert windrow("check", example).returncode == 0
    for name in sorted(os.listdir(os.path.join(ROOT, "config", "profiles"))):
        assert name.endswith(".ini")
        text = open(os.path.join(ROOT, "config", "profiles", name), encoding="utf-8").read()
        assert f"[profile {name[:-4]}]" in text


def test_generated_files_follow_the_tables():
    for option, path in (("--example", "config/windrow.ini.example"),
                         ("--man", "packaging/man/windrow.ini.5")):
        with open(os.path.join(ROOT, path), encoding="utf-8") as kept:
            assert windrow("keys", option).stdout == kept.read(), "run packaging/generate"


def test_keys():
    text = windrow("keys", "store").stdout
    assert "commit_interval  (duration, 10 ms to 1 min, or auto; default 1 s)" in text
    assert "[gateway]" not in text
    keys = json.loads(windrow("keys", "--json").stdout)
    assert {"gateway", "store", "api", "device", "aggregate", "uplink"} <= {
        one["section"] for one in keys}
    one = next(one for one in keys if one["key"] == "when_full")
    assert one["choices"] == ["thin", "drop-oldest", "pause"] and one["default"] == "thin"
    wrong = windrow("keys", "stor")
    assert wrong.returncode == 2 and "did you mean store?" in wrong.stderr
