"""A command starts without the modules that it does not need, and what was left out comes when it is called."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SLOW_TO_IMPORT = {"torch._dynamo", "sympy", "scipy.stats", "matplotlib", "sklearn", "pydicom"}


def run(code: str) -> str:
    """In a process of its own: in this one another test may have loaded the compiler."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_predicting_starts_without_modules_that_take_long():
    loaded = run("import sys, vertebra_kp.cli.predict; print(*sys.modules)").split()
    assert not {"torch", "torchvision"} & set(loaded)  # exported networks are run without them
    loaded = run("import sys, vertebra_kp.inference.loading; print(*sys.modules)").split()
    assert "torchvision" in loaded
    assert not SLOW_TO_IMPORT & set(loaded)


START = """
import sys
import torch
from vertebra_kp.models.quick_imports import quick_imports
disable = torch.compiler.disable
with quick_imports():
    from torch._dynamo.utils import is_compile_supported
    @torch.compiler.disable
    def double(x, *, plus=0):
        return 2 * x + plus
    assert "torch._dynamo" not in sys.modules
    {inside}
assert torch.compiler.disable is disable
{after}
from torch._dynamo import utils
assert utils.__file__
assert sys.modules["torch._dynamo.utils"] is utils
"""


@pytest.mark.parametrize(
    ("inside", "after"),
    [
        ("", "from torch._dynamo.utils import counters"),
        ("", "assert double(3, plus=1) == 7"),
        ("", "assert is_compile_supported('cpu') in (True, False)"),
        ("from torch._dynamo.utils import counters", "assert isinstance(counters, dict)"),
        ("assert double(3) == 6", ""),
        ("assert torch.compiler.disable(recursive=False)(double)(3) == 6", ""),
        ("import torch._dynamo", "assert torch._dynamo.utils.counters is not None"),
    ],
)
def test_the_compiler_comes_when_it_is_asked_for(inside, after):
    run(START.format(inside=inside, after=after))


def test_the_compiler_that_is_there_is_left_alone():
    run(
        "import gc, torch, torch._dynamo\n"
        "from vertebra_kp.models.quick_imports import quick_imports\n"
        "disable = torch.compiler.disable\n"
        "with quick_imports():\n"
        "    assert torch.compiler.disable is disable\n"
        "assert gc.get_freeze_count() == 0\n"
    )


def test_garbage_is_collected_again_afterwards_as_before():
    run(
        "import gc\n"
        "from vertebra_kp.models.quick_imports import quick_imports\n"
        "for enabled in (True, False):\n"
        "    gc.enable() if enabled else gc.disable()\n"
        "    with quick_imports():\n"
        "        assert not gc.isenabled()\n"
        "    assert gc.isenabled() is enabled\n"
        "assert gc.get_freeze_count() > 0\n"
    )
