"""The program `galsearch`: what it exits with, and what becomes of errors and Ctrl-C."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

import galsearch
from galsearch.cli.output import kept_interrupts, tell

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter  # Typer has no public names for them
    from typer.models import CommandFunctionType


class _Stopped(Exception):  # noqa: N818  an interruption is no error
    """Ctrl-C, under a name that Typer does not swallow without a word."""


OLD_OPTIONS = {"--api-key-env": "--key-env", "--hdu": "--table-name"}  # as they were called before 0.2
FAMILIES = {  # of commands, by the file that they are in
    "atlases": "Make, keep and look into an atlas",
    "searches": "Search",
    "labels": "Label, caption and evaluate",
    "knowledge": "Classify by known neighbors",
    "discovery": "Find what is odd",
    "review": "Review, and be told what is new",
    "watch": "Watch unattended",
    "pages": "Open the app, or write a page for the web",
    "service": "Serve over HTTP",
    "agents": "Serve agents",
}


class _Command(typer.core.TyperCommand):
    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        known = {name for parameter in self.params for name in parameter.opts}
        for old, new in OLD_OPTIONS.items():
            if new in known and any(one == old or one.startswith(f"{old}=") for one in args):
                tell(f"{old} is now called {new}")
                args = [new + one[len(old) :] if one.split("=")[0] == old else one for one in args]
        return super().parse_args(ctx, args)


class Searching(_Command):
    """A command with --hybrid, which may stand without a value: "sum"."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        stated = []
        for number, one in enumerate(args):
            alone = one == "--hybrid" and args[number + 1 : number + 2] not in [["rank"], ["sum"]]
            stated += ["--hybrid=sum"] if alone and "--" not in args[:number] else [one]
        return super().parse_args(ctx, stated)


class _Commands(typer.core.TyperGroup):
    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        if args[:2] == ["evaluate", "kb"]:  # beside the other evaluations
            args = ["kb", "evaluate", *args[2:]]
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        families: dict[str, list[tuple[str, str]]] = {title: [] for title in FAMILIES.values()}
        for name in self.list_commands(ctx):
            command = self.commands[name]
            families[FAMILIES[_home(command)]].append((name, command.get_short_help_str(formatter.width)))
        for title, rows in families.items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def make_context(
        self, info_name: str | None, args: list[str], parent: Context | None = None, **extra: Any
    ) -> Context:
        with _stoppable():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Context) -> object:
        with _stoppable():
            return super().invoke(ctx)


def _home(command: Command) -> str:
    """Return the file that a command, or the first of a group, is in."""
    inside = getattr(command, "commands", None)
    return _home(next(iter(inside.values()))) if inside else command.callback.__module__.rpartition(".")[2]


@contextmanager
def _stoppable() -> Iterator[None]:
    """Give Ctrl-C the name that reaches `main`, also where a compiled library makes an error of its own of it."""
    with kept_interrupts() as interrupted:
        try:
            yield
        except KeyboardInterrupt:
            raise _Stopped from None
        except Exception:
            if interrupted:
                raise _Stopped from None
            raise


class _App(typer.Typer):
    """Its commands know the options of before."""

    def command(
        self, name: str | None = None, *, cls: type[typer.core.TyperCommand] | None = _Command, **options: Any
    ) -> Callable[[CommandFunctionType], CommandFunctionType]:
        return super().command(name, cls=cls, **options)


app = _App(
    cls=_Commands,
    help="Search galaxies in words, by example and in SQL, over a catalog that fits in one file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        print(f"galsearch {galsearch.__version__}")
        raise typer.Exit


def add_group(name: str, help_text: str) -> typer.Typer:
    """Return a group of commands, such as `galsearch kb`, to add its own to."""
    group = _App(help=help_text, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
    app.add_typer(group, name=name)
    return group


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("LANCE_LOG", "error")  # its warnings about empty partitions are not for our users
    try:
        app()
    except galsearch.GalsearchError as error:
        tell(*_one_error(error))
        raise SystemExit(1) from None
    except (KeyboardInterrupt, _Stopped):
        print("galsearch: stopped; nothing is lost, run the same command again to go on", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone, and with it anyone to tell
        raise SystemExit(0) from None
    except OSError as error:
        tell(*_one_error(error))
        raise SystemExit(1) from None


def _one_error(error: Exception) -> list[str]:
    """Return the lines of an error; all but the first are set in, so that none looks like one of ours."""
    return ("galsearch: " + str(error).replace("\n", "\n  ")).split("\n")
