"""Mutation testing: changes the core in small ways, and says which changes its tests don't notice.

mutmut says what to change. Each mutant gets a process of its own, forked from one that has loaded the tests.
There the changed function takes the place of the original, and the tests that call it run until one fails.

    python tools/mutation.py [--jobs 2] [delivery detection/scan …]

It fails if fewer than 90 % of a package's mutants are killed, or if one survives that is not listed in
tests/mutation_survivors.yaml.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import inspect
import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, FrameType, FunctionType
from typing import Any

import libcst
import pytest
import yaml
from libcst.metadata import MetadataWrapper
from mutmut.mutation.file_mutation import MutationVisitor, deep_replace, mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

ROOT = Path(__file__).parent.parent
CORE = ROOT / "airflow_insightly_hooks" / "core"
SURVIVORS = ROOT / "tests" / "mutation_survivors.yaml"
PACKAGES = ("criteria", "delivery", "detection")
ENOUGH = 90  # percent of a package's mutants
EXAMPLES = 15  # of Hypothesis: always the same ones, so that two runs agree
SLOWEST = 8  # seconds of processor time; a test that takes more is left out
MEMORY = 4 << 30  # bytes: some mutants add to a list for ever
PASS, FAIL, UNFIT = 0, 1, 2  # how a mutant's process ends; an unfit one can't be made


@dataclass(frozen=True)
class Mutant:
    """One change of one function.

    :ivar source: the function with the change.
    :ivar name: how the list of survivors names the mutant, whatever else changes in its module.
    """

    module: str
    package: str
    function: str
    source: str
    name: str

    def apply(self) -> None:
        """Have everything that refers to the function run this mutant."""
        outer, _, name = self.function.rpartition(".")
        tree = ast.parse(self.source)
        if outer:  # a class around it, for super() and private names
            around = ast.parse(f"class {outer}: pass")
            around.body[0].body = tree.body  # type: ignore[attr-defined]
            tree = around
        namespace = dict(vars(importlib.import_module(self.module)))
        exec(compile(tree, self.name, "exec", annotations.compiler_flag), namespace)  # noqa: S102 — our code
        found = vars(namespace[outer])[name] if outer else namespace[name]
        new = getattr(found, "__func__", found)
        old = original(self.module, self.function)
        for part in ("__code__", "__defaults__", "__kwdefaults__"):
            setattr(old, part, getattr(new, part))


def original(module: str, function: str) -> FunctionType:
    """Return a function, without what makes it a static method or a class method."""
    found: Any = importlib.import_module(module)
    for name in function.split("."):
        found = inspect.getattr_static(found, name)
    return getattr(found, "__func__", found)  # type: ignore[no-any-return]


def mutants_of(file: Path) -> Iterator[Mutant]:
    """Yield mutmut's mutants of a module's functions and methods, but for those that have a decorator."""
    visitor = MutationVisitor(mutation_operators, IgnoredCode(set(), set(), set()))
    module = MetadataWrapper(libcst.parse_module(file.read_text("utf-8"))).visit(visitor)
    classes = [node for node in module.body if isinstance(node, libcst.ClassDef)]
    outer = {function: f"{node.name.value}." for node in classes for function in node.body.body}
    dotted = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    short = file.relative_to(CORE).with_suffix("").as_posix()
    for mutation in visitor.mutations:
        function = mutation.contained_by_top_level_function
        if not isinstance(function, libcst.FunctionDef):  # it is in a class, or in no function at all
            continue
        before = module.code_for_node(function)
        after = module.code_for_node(deep_replace(function, mutation.original_node, mutation.mutated_node))
        lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm=""))[3:]
        change = " -> ".join(" ".join(x[1:].strip() for x in lines if x[0] == sign) for sign in "-+")
        name = outer.get(function, "") + function.name.value
        yield Mutant(dotted, file.parent.name, name, after, f"{short} {name}: {change}")


def forked(jobs: Iterable[tuple[Any, Callable[[], int]]], at_once: int) -> Iterator[tuple[Any, int]]:
    """Run each job in a process of its own. Yield its key and what it returned; -9 or so if it was killed."""
    left, running = iter(jobs), dict[int, Any]()
    while True:
        while len(running) < at_once and (job := next(left, None)):
            if (child := os.fork()) == 0:
                os._exit(_silently(job[1]))
            running[child] = job[0]
        if not running:
            return
        child, status = os.wait()
        yield running.pop(child), os.waitstatus_to_exitcode(status)


def _silently(job: Callable[[], int]) -> int:
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    try:
        return job()
    except BaseException:
        return FAIL


class Mutation:
    """The plugin of pytest that runs the tests of each mutant, instead of all tests once."""

    def __init__(self, mutants: list[Mutant], listed: set[str], at_once: int) -> None:
        self._mutants, self._listed, self._at_once = mutants, listed, at_once
        self.survivors: list[Mutant] = []
        self.broken: list[str] = []  # tests that fail without a mutant

    def pytest_configure(self) -> None:
        """Have Hypothesis try few examples, and not look for simpler ones."""
        from hypothesis import HealthCheck, Phase, settings  # not earlier: pytest wants to load it

        own: dict[str, Any] = {
            "phases": (Phase.explicit, Phase.generate),
            "database": None,
            "derandomize": True,
        }
        # The machine may be busy.
        own |= {"max_examples": EXAMPLES, "deadline": None, "suppress_health_check": list(HealthCheck)}
        settings.register_profile("mutation", settings(), **own)
        settings.load_profile("mutation")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Do so, too, with tests that have a number of their own."""
        from hypothesis import settings

        for test in (getattr(item, "obj", None) for item in items):
            if own := getattr(test, "_hypothesis_internal_use_settings", None):
                test._hypothesis_internal_use_settings = settings(own, max_examples=EXAMPLES)  # type: ignore

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Find out which tests call what. Then run each mutant's, the fastest first."""
        _run(session.items[0], session.items[-1])  # what lasts for the session is made once
        calls = self._calls(session.items)
        tests = ((m, sorted(calls.get(f"{m.module}.{m.function}", ()))) for m in self._mutants)
        jobs = ((mutant, partial(_try, mutant, session.items, found)) for mutant, found in tests)
        for done, (mutant, ended) in enumerate(forked(jobs, self._at_once), 1):
            if ended == UNFIT:
                raise RuntimeError(f"this mutant can't be made: {mutant.name}")
            if ended == PASS:
                self.survivors.append(mutant)
                if mutant.name not in self._listed:
                    print(f"survives: {mutant.name}", flush=True)
            if done % 200 == 0:
                print(f"  {done} of {len(self._mutants)} mutants", flush=True)
        return True

    def _calls(self, items: list[pytest.Item]) -> dict[str, list[tuple[float, int]]]:
        """Return, by function, the tests that call it: the seconds that each takes, and its number."""
        names = {original(m.module, m.function).__code__: f"{m.module}.{m.function}" for m in self._mutants}
        calls: dict[str, list[tuple[float, int]]] = {}
        with TemporaryDirectory() as folder:
            files = [Path(folder, str(number)) for number in range(len(items))]
            jobs = ((n, partial(_note_calls, item, names, files[n])) for n, item in enumerate(items))
            for number, ended in forked(jobs, self._at_once):
                if ended != PASS:
                    self.broken.append(items[number].nodeid)
                    continue
                seconds, called = json.loads(files[number].read_text())
                for name in called if seconds <= SLOWEST else ():
                    calls.setdefault(name, []).append((seconds, number))
        return calls


def _run(item: pytest.Item, following: pytest.Item | None) -> int:
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
    return FAIL if item.session.testsfailed else PASS


def _note_calls(item: pytest.Item, names: dict[CodeType, str], file: Path) -> int:
    called = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code in names:
            called.add(names[frame.f_code])

    sys.setprofile(note)
    ended = _run(item, None)
    sys.setprofile(None)
    file.write_text(json.dumps([time.process_time(), sorted(called)]))
    return ended


def _try(mutant: Mutant, items: list[pytest.Item], tests: list[tuple[float, int]]) -> int:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    try:
        mutant.apply()
    except Exception:
        return UNFIT
    for place, (seconds, number) in enumerate(tests, 1):
        following = items[tests[place][1]] if place < len(tests) else None
        limit = int(time.process_time() + 5 + 10 * seconds)  # some mutants never end
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        if _run(items[number], following) == FAIL:
            return FAIL
    return PASS


def main() -> int:
    """Run, and print a line for each package."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=PACKAGES, help="packages, or modules (delivery/ledger)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many mutants are tried at once")
    options = parser.parse_args()
    files = [sorted((CORE / part).glob("*.py")) or [CORE / f"{part}.py"] for part in options.parts]
    mutants = [mutant for file in chain(*files) for mutant in mutants_of(file)]
    groups = yaml.safe_load(SURVIVORS.read_text("utf-8"))
    listed = {name for group in groups for name in group["mutants"].splitlines()}
    print(f"mutation: {len(mutants)} mutants of {', '.join(options.parts)}", flush=True)
    mutation = Mutation(mutants, listed, options.jobs)
    tests = sorted({str(ROOT / "tests" / "core" / mutant.package) for mutant in mutants})
    without = [f"-pno:{name}" for name in ("cacheprovider", "cov", "schemathesis", "xdist")]
    # A busy machine is no reason for a time-out: that is for mutants that wait for ever.
    if ended := pytest.main(
        [*without, "-qq", "-s", "--timeout=900", f"--rootdir={ROOT}", *tests], [mutation]
    ):
        return int(ended)
    survivors = {mutant.name for mutant in mutation.survivors}
    for name in sorted(listed & {mutant.name for mutant in mutants} - survivors):
        print(f"is killed, but listed: {name}")
    for test in mutation.broken:
        print(f"fails without a mutant, so it was left out: {test}")
    lacks = bool(survivors - listed or mutation.broken)
    survived = Counter(mutant.package for mutant in mutation.survivors)
    for package, number in Counter(mutant.package for mutant in mutants).items():
        killed = number - survived[package]
        lacks |= 100 * killed < ENOUGH * number
        print(f"{package}: {number} mutants, {killed} killed, {100 * killed / number:.1f} %")
    return int(lacks)


if __name__ == "__main__":
    sys.exit(main())
