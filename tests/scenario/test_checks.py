"""The convention checker finds what it is there for, and nothing in a clean tree."""
import os
import subprocess

import pytest

CHECKER = os.path.join(os.path.dirname(__file__), "..", "support", "check_style")
CLEAN = "static int one(void)\n{\n    return 1; /* never sprintf() */\n}\n"


def check(tmp_path, name, content):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return subprocess.run([CHECKER, str(tmp_path)], capture_output=True, text=True, timeout=90)


def function(lines):
    return "int f(void)\n{\n" + "    g();\n" * (lines - 3) + "}\n"


@pytest.mark.parametrize("name, content", [
    ("gateway/a.c", CLEAN),
    ("gateway/a.c", 'const char *text = "strcpy(";\n'),
    ("gateway/a.h", "#pragma once\n"),
    ("tests/a.c", function(80)),
    ("tests/golden/block.bin", b"\0\1\2"),
], ids=["calm", "in-a-text", "header", "long-function", "golden"])
def test_clean(tmp_path, name, content):
    result = check(tmp_path, name, content)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name, content, words", [
    ("gateway/a.c", "int f(void)\n{\n    return atoi(s);\n}\n", "a.c:3: atoi() is banned"),
    ("gateway/a.c", "    /* TO" "DO later */\n", "left unfinished"),
    ("gateway/a.c", "\n" * 801, "801 lines, at most 800"),
    ("gateway/a.h", "#pragma once\n" * 121, "a header of 121 lines"),
    ("gateway/a.h", "int f(void);\n", "without #pragma once"),
    ("tests/a.c", function(81), "f() has 81 lines"),
    ("tests/a.c", "int f(void)\n{\n#ifdef A\n#endif\n}\n", "#if inside a function"),
    ("gateway/a.c", function(16), "median function over 15"),
    ("gateway/a.c", "typedef struct a b;\n", "no typedef"),
    ("gateway/a.c", "x" * 101 + "\n", "101 columns"),
    ("gateway/a.c", "\tint a;\n", "a tab"),
    ("notes.txt", "hello\n", "top-level name"),
    ("tests/server.key", "hello\n", "does not belong in git"),
    ("tests/server.txt", "-----BEGIN PRIVATE " "KEY-----\n", "private key"),
    ("tests/program", b"\177ELF\0", "a binary file"),
    ("tests/golden/block.bin", b"\0" * 70000, "at most 65536"),
], ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "content")
def test_breach(tmp_path, name, content, words):
    result = check(tmp_path, name, content)
    assert result.returncode == 1
    assert words in result.stdout
