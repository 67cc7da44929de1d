"""The public surface: what `import galsearch` promises is there, described, and loaded only when used."""

import inspect
from importlib import import_module

import pytest

import galsearch

NAMES = [name for name in galsearch.__all__ if not name.startswith("__")]
CLASSES = [name for name in NAMES if inspect.isclass(getattr(galsearch, name))]


def members(kind: type) -> list[str]:
    """Return the public methods and properties that a class has of ours, its own or inherited."""
    ours = [base for base in kind.__mro__ if base.__module__.startswith("galsearch.")]
    return [
        name
        for name, value in {name: value for base in reversed(ours) for name, value in vars(base).items()}.items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, (property, classmethod, staticmethod)))
    ]


@pytest.mark.parametrize("name", galsearch.__all__)
def test_every_public_name_resolves(name):
    assert getattr(galsearch, name) is not None


def test_dir_tells_the_public_names_and_each_only_once():
    assert sorted(dir(galsearch)) == sorted(set(galsearch.__all__))


def test_every_error_is_public_and_below_galsearch_error():
    errors = vars(import_module("galsearch.errors"))
    classes = {name for name, value in errors.items() if inspect.isclass(value)}
    assert classes <= set(galsearch.__all__)
    assert all(issubclass(errors[name], galsearch.GalsearchError) for name in classes)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="bulid"):
        galsearch.bulid  # noqa: B018


@pytest.mark.parametrize("name", [name for name in NAMES if callable(getattr(galsearch, name))])
def test_every_public_callable_has_a_docstring_of_its_own(name):
    text = inspect.getdoc(getattr(galsearch, name)) or ""
    assert text and not text.startswith(f"{name}("), f"galsearch.{name} has no docstring"


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_method_has_a_docstring(name):
    kind = getattr(galsearch, name)
    bare = [member for member in members(kind) if not inspect.getdoc(inspect.getattr_static(kind, member))]
    assert bare == []


@pytest.mark.parametrize("name", ["open", "build", "add", "bundle", "demo"])
def test_options_of_the_verbs_are_keyword_only(name):
    optional = [
        p.name
        for p in list(inspect.signature(getattr(galsearch, name)).parameters.values())[1:]
        if p.default is not p.empty and p.kind is not p.KEYWORD_ONLY
    ]
    assert optional == []


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_of_a_public_function_has_a_type(name):
    thing = getattr(galsearch, name)
    functions = [thing] if inspect.isfunction(thing) else []
    functions += (
        [f for m in members(thing) if inspect.isfunction(f := inspect.getattr_static(thing, m))]
        if name in CLASSES
        else []
    )
    for function in functions:
        signature = inspect.signature(function)
        bare = [p.name for p in signature.parameters.values() if p.name != "self" and p.annotation is p.empty]
        assert bare == [] and signature.return_annotation is not signature.empty, function.__qualname__


@pytest.mark.parametrize(
    ("options", "of"),
    [
        ("query.QueryOptions", "Query"),
        ("rerank.judge.JudgeOptions", "Judge"),
        ("rerank.agent.AgentOptions", "AgentJudge"),
    ],
)
def test_options_that_are_passed_on_are_those_that_there_are(options, of):
    module, _, name = options.rpartition(".")
    stated = import_module(f"galsearch.{module}").__dict__[name].__annotations__
    fields = set(getattr(galsearch, of).__dataclass_fields__) - {"terms"}
    assert set(stated) == fields
