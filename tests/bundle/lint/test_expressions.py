# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ast

import pytest

from monai_anomaly.bundle.lint.expressions import (
    IMPORTS,
    expression_problems,
    import_problem,
    imported_names,
    is_import,
    references,
    substitute_references,
)

NAMES = imported_names([f"${statement}" for statement in IMPORTS])

ALLOWED = [
    "$@trainer.run()",
    "$@train#trainer.run()",
    "$@train::trainer.run()",
    "$@network_def.to(@device)",
    "$@network.parameters()",
    "$@::lr * 2",
    "$@bundle_root + '/models/model.pt'",
    "$os.path.join(@output_dir, 'maps')",
    "$not os.path.exists(@ckpt_path)",
    "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "$[@device] if @device.type == 'cuda' else None",
    "$@datalist[: 2 * @n]",
    "$@datalist[-1]['image']",
    "$list(sorted(glob.glob(@dataset_dir + '/*.png')))",
    "${'model': @network, 'rank': idist.get_rank()}",
    "$dist.is_initialized() and dist.get_rank() > 0",
    "$torch.distributed.init_process_group('nccl' if torch.cuda.is_available() else 'gloo')",
    "$monai.utils.set_determinism(seed=@seed)",
    "$monai.handlers.from_engine(['pred', 'label'])",
    "$json.load(open(@dataset_dir + '/datalist.json'))",
    "$@state.get('epoch', 0) // 2",
    "$torch.float16",
    "$monai.__version__",
    "$-1.5e-3",
    "$(1, 2)[0] in [3, 'a']",
    "$'detection rate: 5 %'",
]

REFUSED = {
    "a dunder import": "$__import__('os').system('x')",
    "a class hierarchy walk": "$().__class__.__bases__",
    "a dunder of a reference": "$@network.__class__",
    "one underscore": "$@network._modules",
    "a walk from a literal": "$''.join.__self__",
    "eval": "$eval('1')",
    "exec": "$exec('import os')",
    "compile": "$compile('1', 'x', 'eval')",
    "getattr": "$getattr(@network, 'run')",
    "open": "$open('x', 'w')",
    "open to write, inside json": "$json.load(open('x', 'w'))",
    "json without open": "$json.load(@stream)",
    "breakpoint": "$breakpoint()",
    "input": "$input()",
    "torch.hub": "$torch.hub.load('a/b', 'c')",
    "torch.load": "$torch.load('x.pt')",
    "torch.os": "$torch.os.system('x')",
    "a module's module": "$monai.config.sys.exit()",
    "os.system": "$os.system('x')",
    "os.popen": "$os.popen('x').read()",
    "os.environ as a value": "$os.environ",
    "np.load": "$np.load('x.npy')",
    "a lambda": "$lambda: 1",
    "a called lambda": "$(lambda: 1)()",
    "a comprehension": "$[i for i in @datalist]",
    "a generator": "$list(i for i in @datalist)",
    "an f-string": "$f'{@network}'",
    "a format method": "$'{0.__class__}'.format(@network)",
    "a walrus": "$(x := 1)",
    "a star": "$range(*@sizes)",
    "two stars": "$dict(**@arguments)",
    "two stars in a dictionary": "${**@arguments}",
    "a power": "$9 ** 9 ** 9 ** 9",
    "a shift": "$1 << 10000000000",
    "a huge number": "$10000000000000000000000000",
    "bytes": "$b'x'",
    "an ellipsis": "$@x[...]",
    "a set": "${1, 2}",
    "a function as a value": "$sorted(@x, key=eval)",
    "a module as a value": "$[os]",
    "a builtin as a value": "$len",
    "a method of a module": "$torch.nn.Linear(1, 1)",
    "a name that nothing binds": "$subprocess",
    "the hidden name of MONAI": "$__local_refs",
    "a reference spelt by hand": "$__local_refs['network']",
    "a computed reference": "$__local_refs[@name]",
    "a reference inside quotes": "$'@network'",
    "a quote closed by a reference": "$'@or'",
    "a call through quotes": "$'@x' + __import__('os').system('@y')",
    "nested quoting": "$\"'\" + eval('\\x5f\\x5fimport\\x5f\\x5f') + \"'\"",
    "the whole config": "$@",
    "a matrix product": "$1 @ 2",
    "a module by reference": "$@imports#0",
    "an attribute of a module by reference": "$@imports#0.system",
    "an attribute that is not listed": "$@trainer.logger",
    "a method that is not listed": "$@trainer.register_events('x')",
    "letters that normalize to others": "$ｅval('1')",
    "a letter of another alphabet": "$torch.cuda.is_аvailable()",
    "a bidirectional mark": "$'a\u202e'",
    "a statement": "$x = 1",
    "two statements": "$1; 2",
    "two lines": "$1\n2",
    "an import": "$import os; os.system('x')",
    "del": "$del torch",
    "await": "$await @x",
    "a broken text": "$(",
    "nothing": "$",
    "a leading space": "$ 1",
    "a deep nesting": "$" + "(" * 500 + ")" * 500,
    "a long chain": "$" + "-" * 1900 + "1",
    "a long text": "$'" + "a" * 3000 + "'",
    "a null byte": "$1\x00",
}


@pytest.mark.parametrize("text", ALLOWED)
def test_the_grammar_covers_what_bundles_need(text: str) -> None:
    assert expression_problems(text, NAMES) == []


@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_is_refused(name: str) -> None:
    problems = expression_problems(REFUSED[name], NAMES)
    assert problems
    assert all(isinstance(problem, str) and problem for problem in problems)


def test_refusals_name_what_is_wrong() -> None:
    assert "'torch.hub.load'" in expression_problems("$torch.hub.load('a')")[0]
    assert "Lambda" in expression_problems("$lambda: 1")[0]
    assert "'logger'" in expression_problems("$@trainer.logger")[0]
    assert "no space" in expression_problems("$ 1")[0]


def test_a_name_must_be_imported() -> None:
    assert "nothing binds 'glob'" in expression_problems("$glob.glob('*')")[0]
    assert expression_problems("$glob.glob('*')", {"glob": "glob"}) == []


def test_an_alias_does_not_lend_its_name() -> None:
    """A config may not bind the name of an allowed module to another one."""
    assert imported_names(["$import os as torch", "$import subprocess as glob"]) == {}
    assert import_problem("$import os as torch") is not None


@pytest.mark.parametrize("statement", IMPORTS)
def test_listed_imports_are_allowed(statement: str) -> None:
    assert is_import(f"${statement}")
    assert import_problem(f"${statement}") is None


@pytest.mark.parametrize(
    "text",
    [
        "$import subprocess",
        "$import os; os.system('x')",
        "$import os, subprocess",
        "$from os import system",
        "$import os as torch",
        "$import monai.bundle",
        "$import scripts",
        "$import os\nimport subprocess",
    ],
)
def test_other_imports_are_refused(text: str) -> None:
    assert is_import(text)
    assert import_problem(text) is not None


def test_an_expression_is_not_an_import() -> None:
    assert not is_import("$@import_dir + 'x'")
    assert not is_import("$'import os'")


@pytest.mark.parametrize("text", [*ALLOWED, "$'@or'", "$@a + @a#b + @ab", "$@network_def.to(@device)"])
def test_references_are_replaced_as_monai_does(text: str) -> None:
    from monai.bundle import ReferenceResolver

    ids = {item[1:]: None for item in ReferenceResolver.id_matcher.findall(ReferenceResolver.normalize_id(text))}
    assert substitute_references(text) == ReferenceResolver.update_refs_pattern(text, ids)


@pytest.mark.parametrize(
    "text", ["@network", "@train#dataset#data", "x@y.org", "@output_dir/x", "$@a + @b", "@@a", "text"]
)
def test_references_are_found_as_monai_does(text: str) -> None:
    from monai.bundle import ReferenceResolver

    assert set(references(text)) == set(ReferenceResolver.match_refs_pattern(text))


def test_allowed_expressions_have_no_hidden_names() -> None:
    """The obvious second opinion: no name or attribute that begins with an underscore, besides the version."""
    for text in ALLOWED:
        for node in ast.walk(ast.parse(substitute_references(text)[1:])):
            name = getattr(node, "id", None) or getattr(node, "attr", None) or ""
            assert not name.startswith("_") or name in ("__local_refs", "__version__")
