"""The program `galsearch`: what it exits with, and what becomes of errors and Ctrl-C."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
import typer.core

import galsearch
from galsearch.cli.output import kept_interrupts, tell


class _Stopped(Exception):  # noqa: N818  an interruption is no error
    """Ctrl-C, under a name that Typer does not swallow without a word."""


class _Commands(typer.core.TyperGroup):
    def make_context(self, *arguments: object, **options: object) -> typer.Context:
        with _stoppable():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: typer.Context) -> object:
        with _stoppable():
            return super().invoke(ctx)


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


app = typer.Typer(
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
