"""Unused imports are left out, everything else stays where it was."""

import ast

import pytest

from longthought.tools.imports import without_unused_imports as strip


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import numpy as np\nprint(1)", "pass\nprint(1)"),
        ("import math, os\nmath.pi", "import math\nmath.pi"),
        ("import os.path\nos.sep", "import os.path\nos.sep"),
        ("from a import b as c, d\nc", "from a import b as c\nc"),
        ("from a import *\nx", "from a import *\nx"),
        ("from __future__ import annotations\n1", "from __future__ import annotations\n1"),
        ("from a import (b,\n  c)\nc", "from a import c\n\nc"),
        ("import a; import b; b", "pass; import b; b"),
        ("é = 'ü'; import a\né", "é = 'ü'; pass\né"),
        ("def f():\n    import a\n    return 1", "def f():\n    pass\n    return 1"),
        ("if 1:\n    import a", "if 1:\n    pass"),
        (
            "try:\n    import a\nexcept ImportError:\n    pass",
            "try:\n    pass\nexcept ImportError:\n    pass",
        ),
        ("import math\neval('math.pi')", "import math\neval('math.pi')"),
        ("not python", "not python"),
        ("", ""),
        ("\x00", "\x00"),
        ("import a\r\nprint(1)\r\n", "pass\r\nprint(1)\r\n"),
    ],
)
def test_stripping(code, expected):
    assert strip(code) == expected


def test_line_numbers_stay():
    code = "import a\nfrom b import (\n    c,\n    d,\n)\nimport e\n1/0\n"
    node = ast.parse(strip(code)).body[-1]
    assert node.lineno == 7


def test_doubtful_escapes_warn_nobody():
    assert strip("import a\nx = '\\d'") == "pass\nx = '\\d'"


def test_hopeless_nesting_comes_back():
    code = "(" * 10_000
    assert strip(code) == code
