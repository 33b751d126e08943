"""The command line `neuroseg`.

Exit codes: 0 done; 1 something failed, and the output says what; 2 wrong usage or configuration.
"""

# ruff: noqa: PLC0415 - each command imports what it needs, so that `--help` answers at once

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from node import (
    case_commands,
    listing,
    model_commands,
    notify_commands,
    pull_commands,
    service_command,
    spool_commands,
)

if TYPE_CHECKING:
    from converters.errors import CodedError
    from node.deliver.asking import Answer
    from node.settings import Settings

# Registration multiplies small matrices by the thousand: threads that share one of them wait for
# each other, which takes twice the processor and longer. Read when numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

_DEFAULT_CONFIG = Path("config/node.toml")
_ROLES = ("receive", "web", "work", "infer")
_EXIT_CODES = (
    "Exit codes: 0 done; 1 something failed or was found, and the output says what; 2 wrong usage "
    "or configuration."
)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)

_config = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="NEUROSEG_CONFIG",
    help="Settings file; default config/node.toml where it exists, else built-in defaults.",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def _settings(config: Path | None) -> Settings:
    from node import settings

    if config is None and _DEFAULT_CONFIG.exists():
        config = _DEFAULT_CONFIG
    return settings.load(config)


class _Group(listing.Commands):
    """Shows our errors with their code and advice instead of a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; a coded error ends with exit code 1, of the configuration with 2."""
        from converters.errors import CodedError

        try:
            return super().invoke(ctx)
        except CodedError as error:
            click.echo(f"{error.code}: {error}\n{error.advice}", err=True)
            sys.exit(_exit_code(error))


def _exit_code(error: CodedError) -> int:
    from node.errors import ConfigError

    return 2 if isinstance(error, ConfigError) else 1


@click.group(
    cls=_Group, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EXIT_CODES
)
@click.version_option(package_name="neuroseg-node")
def main() -> None:
    """NeuroSeg Node: brain MR studies in, tumour segmentations back as DICOM SEG.

    Research use only; not for clinical decisions.
    """


@main.command()
@_config
@click.option("--role", type=click.Choice(_ROLES), help="Run one role in this process only.")
@click.option("--check-config", is_flag=True, help="Validate, print the effective settings, exit.")
def serve(config: Path | None, role: str | None, *, check_config: bool) -> None:
    """Run the node: receive, segment and send back until SIGTERM or Ctrl-C."""
    from converters.errors import CodedError
    from inference import manifest
    from node import logs, supervise
    from node.access import Gate

    settings = _settings(config)
    if check_config:
        click.echo(settings.model_dump_json(indent=2))
        return
    logs.configure(level=settings.log_level, role=role or "supervisor")
    logs.log_crashes()
    supervise.die_with_parent()
    if role is None:
        Gate.load(settings.web)  # better no node than one that lets everybody in
        manifest.load(settings.model.folder)  # better no node than one that restarts for ever
        name = settings.jobs.worker_name
        several = {
            "infer": supervise.infer_environments(settings.model.device, name),
            "receive": supervise.receive_environments(settings.receive.processes, name),
        }
        supervise.run_until_signal(
            supervise.Supervisor(supervise.ROLES, config, environments=several)
        )
        return
    from node import app

    try:
        app.RUN_ROLE[role](settings)
    except CodedError as error:
        logs.get().error(
            "role.failed", code=error.code, sentence=str(error), place=logs.place_of(error)
        )
        sys.exit(_exit_code(error))


@main.command()
@_config
@_as_json
def doctor(config: Path | None, *, as_json: bool) -> None:
    """Check disk, databases, model, ports and every destination."""
    from dataclasses import asdict

    from node.doctor import checks

    findings = checks(_settings(config), config)
    if as_json:
        listing.as_json([asdict(one) for one in findings])
    for finding in () if as_json else findings:
        mark = click.style("ok  ", fg="green") if finding.ok else click.style("FAIL", fg="red")
        click.echo(f"{mark} {finding.name:<22} {finding.detail}")
        if not finding.ok:
            click.echo(f"     -> {finding.advice}")
    sys.exit(0 if all(finding.ok for finding in findings) else 1)


@main.command()
@_config
@_as_json
@click.argument("names", nargs=-1)
def echo(config: Path | None, names: tuple[str, ...], *, as_json: bool) -> None:
    """Ask the destinations NAMES (default: all) whether they answer."""
    from dataclasses import asdict

    from node.deliver.asking import ask

    settings = _settings(config)
    wanted = [one for one in settings.destinations if not names or one.name in names]
    if not wanted:
        click.echo("no such destination in the configuration", err=True)
        sys.exit(2)
    answers = []
    for destination in wanted:
        answers.append(ask(destination, calling_ae_title=settings.receive.ae_title))
        if not as_json:
            _say(answers[-1])
    if as_json:
        listing.as_json([asdict(one) for one in answers])
    sys.exit(1 if any(one.code for one in answers) else 0)


def _say(answer: Answer) -> None:
    if answer.code is None:
        click.echo(f"{answer.name}: answers ({answer.transport}) in {answer.duration_s:.2f} s")
    else:
        click.echo(f"{answer.name}: {answer.code}: {answer.sentence}")
        click.echo(f"  -> {answer.advice}")


@main.group(invoke_without_command=True)
@_config
@_as_json
@click.option("--limit", default=20, show_default=True, help="How many, newest first.")
@click.pass_context
def cases(ctx: click.Context, config: Path | None, limit: int, *, as_json: bool) -> None:
    """List cases, or look at one and act on it."""
    ctx.obj = _settings(config)
    if ctx.invoked_subcommand is None:
        case_commands.show_list(ctx.obj, limit, as_json=as_json)


for _command in case_commands.COMMANDS:
    cases.add_command(_command)

main.add_command(model_commands.model)
main.add_command(service_command.install_service)


@main.group()
@_config
@click.pass_context
def spool(ctx: click.Context, config: Path | None) -> None:
    """Look at the files of the node."""
    ctx.obj = _settings(config)


for _command in spool_commands.COMMANDS:
    spool.add_command(_command)


@main.group()
@_config
@click.pass_context
def notify(ctx: click.Context, config: Path | None) -> None:
    """Tell people of cases that need them."""
    ctx.obj = _settings(config)


for _command in notify_commands.COMMANDS:
    notify.add_command(_command)


@main.command()
@click.argument("study_instance_uid", metavar="STUDY_UID")
@click.option("--from", "name", default="source", show_default=True, help="Which archive.")
@_config
def pull(study_instance_uid: str, name: str, config: Path | None) -> None:
    """Fetch the series of a study that the model needs from an archive.

    NAME is `source`, as of [source], or a destination with transport stow.
    """
    pull_commands.run(_settings(config), study_instance_uid, name)


@main.command()
@click.argument("dicom_dir", type=_FOLDER)
@_config
@_as_json
def explain(dicom_dir: Path, config: Path | None, *, as_json: bool) -> None:
    """Say which series of the studies below DICOM_DIR would serve, and why.

    Reads headers alone and writes nothing. Ends with 0 where at least one study would run.
    """
    from node import explain as explaining

    sys.exit(explaining.run(dicom_dir, _settings(config), as_json=as_json))


@main.command()
@click.argument("dicom_dir", type=_FOLDER)
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for seg.dcm, sr.dcm, measurements.json, labels.nii.gz, channels.nii.gz, "
    "preview.png, the pictures of the summary as PNG and DICOM (and entropy.nii.gz and "
    "probabilities.nii.gz where [model] asks for them), and the forms asked for.",
)
@click.option(
    "--form",
    "forms",
    multiple=True,
    type=click.Choice(["regions", "labelmap", "probabilities", "entropy", "rtstruct"]),
    help="A further DICOM object of the result; may be repeated.",
)
@click.option(
    "--also", multiple=True, metavar="ROLE", help="A SEG on this series as well; may be repeated."
)
@_config
def segment(
    dicom_dir: Path, out: Path, config: Path | None, forms: tuple[str, ...], also: tuple[str, ...]
) -> None:
    """Segment the study in DICOM_DIR without any network; the same stages as the service."""
    from node import logs, offline

    settings = _settings(config)
    logs.configure(level="ERROR", role="segment")
    sys.exit(offline.run(dicom_dir, out, settings, offline.forms_of(forms, also)))


@main.command()
@click.option("--once", is_flag=True, help="Exit when the result is back instead of staying up.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var/demo"),
    show_default=True,
    help="Everything the demonstration writes.",
)
@click.option("--seed", default=7, show_default=True, help="Which synthetic patient.")
def demo(folder: Path, seed: int, *, once: bool) -> None:
    """Push a synthetic study through a node and show what comes back."""
    from node.demo import run

    sys.exit(run.run(folder, seed=seed, once=once))


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands and options.

    For bash: neuroseg completion bash > ~/.local/share/bash-completion/completions/neuroseg
    """
    from click.shell_completion import get_completion_class

    known = get_completion_class(shell)
    if known is not None:
        click.echo(known(main, {}, "neuroseg", "_NEUROSEG_COMPLETE").source())


if __name__ == "__main__":
    main()
