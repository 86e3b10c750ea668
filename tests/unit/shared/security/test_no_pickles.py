"""No code of the platform opens a pickle, or anything else that runs what a file says: read from the code itself.

That the libraries below do not either is shown at run time (``test_model_signatures``), by CPython's own audit hook.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from centinela_local.paths import CHECKOUT

FOLDERS = ("shared", "services", "deploy", "benchmarks", "tests/support")
SOURCES = sorted(path for folder in FOLDERS for path in (CHECKOUT / folder).rglob("*.py"))
MODULES = {
    "pickle",
    "_pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "torch",
    "shelve",
    "marshal",
    "jsonpickle",
    "pickletools",
    "copyreg",
}
CALLS = {
    "read_pickle",
    "to_pickle",
    "load_model",
    "load_pyfunc",
    "unsafe_load",
    "full_load",
    "eval",
    "exec",
    "__import__",
    "compile_restricted",
}
"""``load_model``: MLflow's, which trusts the flavour that the files name; bundles are loaded by ``centinela.model``
alone."""


def faults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and reason of each place in *tree* that opens, or could open, a pickle or run what it reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, f"imports {a.name}") for a in node.names if a.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield node.lineno, f"imports from {node.module}"
        elif isinstance(node, ast.Call):
            name, owner = _name(node.func)
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            if name in CALLS:
                yield node.lineno, f"calls {name}"
            if (
                owner in ("np", "numpy")
                and name in ("load", "savez", "save", "savez_compressed")
                and not _allows_nothing(name, given)
            ):
                yield node.lineno, f"calls {owner}.{name} without allow_pickle=False"
            if (
                owner == "yaml"
                and name in ("load", "load_all", "compose", "parse", "scan")
                and "SafeLoader" not in ast.dump(node)
            ):
                yield node.lineno, f"calls yaml.{name} without SafeLoader"
            if (
                "skops" in (owner or "")
                and name in ("load", "loads")
                and "TRUSTED_TYPES" not in ast.dump(given.get("trusted", node.func))
            ):
                yield node.lineno, "calls skops with other types than the platform's own list"


def _name(function: ast.expr) -> tuple[str, str | None]:
    if isinstance(function, ast.Name):
        return function.id, None
    if isinstance(function, ast.Attribute):
        return function.attr, ast.unparse(function.value)
    return "", None


def _allows_nothing(name: str, given: dict[str | None, ast.expr]) -> bool:
    allowed = given.get("allow_pickle")
    if name in ("savez_compressed", "savez", "save") and allowed is None:
        return True  # what is written is ours; ``load`` decides what is read
    return isinstance(allowed, ast.Constant) and allowed.value is False


def test_no_source_opens_a_pickle() -> None:
    assert len(SOURCES) > 200
    found = {path.relative_to(CHECKOUT): list(faults(ast.parse(path.read_text("utf-8")))) for path in SOURCES}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "import torch.nn",
        "pd.read_pickle(x)",
        "mlflow.sklearn.load_model(uri)",
        "np.load(file)",
        "np.load(file, allow_pickle=True)",
        "np.load(file, allow_pickle=anything)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "skops.io.loads(data)",
        "skops.io.loads(data, trusted=get_untrusted_types(data=data))",
        "skops.io.load(file, trusted=True)",
        "eval(text)",
        "__import__(name)",
    ],
)
def test_each_way_to_open_a_pickle_would_be_found(line: str) -> None:
    assert list(faults(ast.parse(line)))
