"""`neuroseg model`: bring a trained network in, and look at the models there are."""

# ruff: noqa: PLC0415 - each command imports what it needs, so that `--help` answers at once

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from inference.importing import Report
    from inference.manifest import Manifest

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_SHOWN = 5  # names of each sort


@click.group()
def model() -> None:
    """Import a trained model, or look at the models there are."""


@model.command("import")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--template",
    metavar="NAME|FILE",
    help="What the source cannot say: msd-unet, monai-brats-segresnet, or a model.toml without id, "
    "version and weights. A result folder of nnU-Net may do without.",
)
@click.option("--id", "model_id", required=True, help="Small letters, digits and hyphens.")
@click.option("--version", help="Of the model, such as 1.0.0; a MONAI bundle has one of its own.")
@click.option("--fold", metavar="N|all", help="Of a result folder of nnU-Net with several folds.")
@click.option("--prefix", help="Which network of a checkpoint, where several fit: net_ema.")
@click.option(
    "--source-name",
    metavar="TEXT",
    help="Where the weights come from, for the record; default: the name of the file.",
)
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Model folder to write; must not exist.",
)
def import_(  # noqa: PLR0913 - one for each option
    *,
    source: Path,
    template: str | None,
    model_id: str,
    version: str | None,
    fold: str | None,
    prefix: str | None,
    source_name: str | None,
    out: Path,
) -> None:
    """Write a model folder from SOURCE, a file or a folder.

    A file: Lightning .ckpt, state dict (.pt, .pth), TorchScript (.ts, .pt) or .safetensors. A
    folder: a MONAI bundle, or a result of nnU-Net v2 (trainer__plans__configuration). Nothing in
    it is run. The written model is loaded and tested before it appears.
    """
    from inference import importing

    done = importing.import_model(
        source,
        out,
        None if template is None else importing.template_file(template),
        identity=importing.Identity(model_id=model_id, version=version, source_name=source_name),
        prefix=prefix,
        fold=fold,
    )
    click.echo(f"{done.manifest.model_id} is in {out}: loaded, tested")
    _print_report(done.report)
    click.echo(f"To serve it, set [model] folder to {out} and run: neuroseg doctor")


def _print_report(report: Report) -> None:
    click.echo(f"  source       {report.source} ({report.kind})")
    click.echo(f"  parameters   {report.parameter_count:,}")
    if report.norm:
        click.echo(f"  norm layers  {report.norm}")
    click.echo(f"  taken from   {report.place or 'the top'}, names below {report.stripped!r}")
    for title, names in (("left aside  ", report.ignored), ("not called  ", report.inert)):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            click.echo(f"  {title} {', '.join(names[:_SHOWN])}{more}")


@model.command("list")
@click.argument("folder", type=_FOLDER, default=Path("models"))
def list_(folder: Path) -> None:
    """List the models below FOLDER (default: models)."""
    from inference import manifest
    from inference.errors import ModelUnusableError

    for file in sorted(folder.glob(f"*/{manifest.FILE_NAME}")):
        try:
            found = manifest.load(file.parent)
        except ModelUnusableError as error:
            click.echo(f"{file.parent}  {error.code}: {error}")
            continue
        click.echo(f"{file.parent}  {found.model_id}  {found.title}")


@model.command()
@click.argument("folder", type=_FOLDER)
def show(folder: Path) -> None:
    """Show what the model in FOLDER declares; its weights are not opened."""
    from inference import manifest

    found = manifest.load(folder)
    click.secho(f"{found.model_id}  {found.title}", bold=True)
    click.echo(f"  {'DEMONSTRATION. ' if found.is_demonstration else ''}{found.intended_use}")
    for name, text in _facts(found):
        click.echo(f"  {name:<12} {text}")
    for segment in found.segments:
        code = segment.type_code
        what = f"{segment.label} ({code.scheme} {code.value} {code.meaning})"
        click.echo(f"  label {segment.number}      {what}")


def _facts(found: Manifest) -> tuple[tuple[str, str], ...]:
    plan, space = found.infer, found.space
    spacing = " x ".join(f"{one:g}" for one in space.spacing_mm)
    window = " x ".join(str(one) for one in plan.window)
    inputs = ", ".join(f"{one.role} ({one.sequence})" for one in found.inputs)
    can_miss = ", ".join(found.missing_input.allowed) or "none"
    return (
        ("licence", found.licence),
        ("network", found.network.architecture),
        ("inputs", f"{inputs}; may be missing: {can_miss}"),
        ("space", f"{space.orientation}, {spacing} mm, skull {space.skull}"),
        ("windows", f"{window}, overlap {plan.overlap:g}, {plan.blending}, crop {plan.crop}"),
        ("weights", f"{found.weights.file}, SHA-256 {found.weights_sha256}"),
    )


@model.command()
@click.argument("folder", type=_FOLDER)
def verify(folder: Path) -> None:
    """Check the weights in FOLDER against their digest, load them and run one window."""
    from inference import manifest, self_test

    found = manifest.load(folder)
    self_test.run(found)
    click.echo(f"{found.model_id}: digest, parameters and output are as declared")
