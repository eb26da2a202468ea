"""The command line: one subcommand a lens, and the parser's complaints in two lines of netlens's own."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import wraps
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from netlens.cli import console
from netlens.cli.versions import versions
from netlens.errors import UsageError
from netlens.lenses import LENSES

Command = Callable[..., int | None]  # returns the exit code; None is 0

# The base class of all that typer's parser raises. typer up to 0.25 takes it from click, later ones bring their own copy, so it has no
# import path that holds for both; its place in the ancestry of an exception that typer exports does.
ParserError: type[Exception] = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code.

    Not through `Typer.__call__`: that turns Ctrl-C, a closed pipe and usage errors into exit codes and words of its own.

    Raises:
        UsageError: the command line cannot be parsed.
        Exception: whatever the command raises.
    """
    group: Any = get_command(build())
    context: Any = None
    try:
        with group.make_context("netlens", list(arguments) or ["--help"]) as context:
            return group.invoke(context) or 0
    except typer.Exit as done:  # --help and --version
        return done.exit_code
    except ParserError as error:
        raise _refusal(error, context) from None


def build() -> typer.Typer:
    """Build the app with every command of every lens."""
    settings = {"help_option_names": ["--help", "-h"], "max_content_width": 100}
    app = typer.Typer(
        cls=Subcommands, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, context_settings=settings
    )
    app.callback()(_root)
    for lens in LENSES:
        for name, command in commands_of(lens).items():
            app.command(name, context_settings=settings)(_with_stdout_to_itself(command))
    return app


def commands_of(lens: str) -> dict[str, Command]:
    """Return the subcommands of a lens: its `command`, or its `COMMANDS` where it has several."""
    module = import_module(f"netlens.lenses.{lens}.command")
    commands: dict[str, Command] = getattr(module, "COMMANDS", None) or {lens: module.command}
    return {name.replace("_", "-"): command for name, command in commands.items()}


class Subcommands(TyperGroup):
    """The subcommands, which know what to say about a name that is not theirs."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that `args` begin with.

        Raises:
            UsageError: there is none.
        """
        if args[0] not in self.commands:
            raise UsageError(f"no command {args[0]!r}", hint=_other_command(args, list(self.commands)))
        return super().resolve_command(ctx, args)


def _print_versions(wanted: bool) -> None:
    if wanted:
        console.write(f"{versions()}\n")
        raise typer.Exit()


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the versions at work and exit.", is_eager=True, callback=_print_versions)
    ] = False,
) -> None:
    """See what is inside a PyTorch model, and what is wrong with it."""


def _with_stdout_to_itself(command: Command) -> Command:
    @wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> int | None:
        with console.report_only():
            try:
                return command(*args, **kwargs)
            except BrokenPipeError as error:  # a broken stdout never gets here, so this one is a failure
                raise RuntimeError("a pipe broke that is not stdout") from error

    return guarded


def _other_command(arguments: Sequence[str], commands: Sequence[str]) -> str:
    from netlens.loading.suggest import closest

    if (close := closest(arguments[0], commands)) is not None:
        return f"did you mean `{shlex.join(['netlens', close, *arguments[1:]])}`?"
    if "summary" in commands:  # most likely a model: `netlens resnet18`
        return f"to look at a model: `{shlex.join(['netlens', 'summary', *arguments])}`"
    return "`netlens --help` lists the commands"


def _refusal(error: Any, root: Any) -> UsageError:
    """Say in two lines what typer's parser does not understand."""
    context = getattr(error, "ctx", None) or root
    command = getattr(context, "command_path", None) or "netlens"
    if context is root and getattr(root, "invoked_subcommand", None):
        command = f"netlens {root.invoked_subcommand}"  # the parser does not always say where it was
    if type(error).__name__ == "NoSuchOption":
        return UsageError(f"no option {error.option_name!r}", hint=_other_option(error.option_name, context, command))
    message = " ".join(error.format_message().split()).rstrip(".").replace(": Value error, ", ": ")  # the prefix is pydantic's
    return UsageError(message[:1].lower() + message[1:], hint=f"`{command} --help` shows how to call it")


def _other_option(name: str, context: Any, command: str) -> str:
    from netlens.loading.suggest import closest

    otherwise = f"`{command} --help` lists the options"
    if context is None:
        return otherwise
    owners = [sub for sub, found in getattr(context.command, "commands", {}).items() if name in _options(found)]
    if owners:
        return f"options come after the command: `netlens {owners[0]} {name}`"
    close = closest(name, _options(context.command))
    return otherwise if close is None else f"did you mean {close!r}? {otherwise}"


def _options(command: Any) -> list[str]:
    return [name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("--")]
