"""`neuroseg model`: bring a trained network in, and look at the models there are."""

# ruff: noqa: PLC0415 - each command imports what it needs, so that `--help` answers at once

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from node import listing

if TYPE_CHECKING:
    from inference.declarations import SelfTest
    from inference.importing import Report
    from inference.manifest import Manifest
    from inference.model import DeviceChoice
    from node.model_trial import Trial

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_SHOWN = 5  # names of each sort
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


@click.group(cls=listing.Commands)
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
@_as_json
def list_(folder: Path, *, as_json: bool) -> None:
    """List the models below FOLDER (default: models)."""
    from inference import manifest
    from inference.errors import ModelUnusableError

    rows = []
    for file in sorted(folder.glob(f"*/{manifest.FILE_NAME}")):
        try:
            found = manifest.load(file.parent)
        except ModelUnusableError as error:
            rows.append((str(file.parent), "-", f"{error.code}: {error}"))
            continue
        rows.append((str(file.parent), found.model_id, found.title))
    heads = ("folder", "model", "what")
    if as_json:
        listing.as_json([dict(zip(heads, row, strict=True)) for row in rows])
    else:
        listing.show(heads, rows)


@model.command()
@click.argument("folder", type=_FOLDER)
@_as_json
def show(folder: Path, *, as_json: bool) -> None:
    """Show what the model in FOLDER declares; its weights are not opened."""
    from inference import manifest

    found = manifest.load(folder)
    if as_json:
        listing.as_json({"model": found.model_id, **found.model_dump(mode="json")})
        return
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
        ("from", "not stated" if found.provenance is None else found.provenance.source),
    )


@model.command()
@click.argument("folder", type=_FOLDER)
def verify(folder: Path) -> None:
    """Check the weights in FOLDER against their digest, load them and run one window."""
    from inference import manifest, self_test

    found = manifest.load(folder)
    self_test.run(found)
    click.echo(f"{found.model_id}: digest, parameters and output are as declared")


@model.command("test")
@click.argument("folder", type=_FOLDER)
@click.option("--input", "image", type=_FILE, help="4-D NIfTI, channels as the model's inputs.")
@click.option("--truth", type=_FILE, help="3-D NIfTI with the model's label numbers.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
@click.option(
    "--brain-mask",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("models/brain-mask"),
    help="Brain mask network, where the model needs to know the brain; default models/brain-mask.",
)
@_as_json
def test(
    *,
    folder: Path,
    image: Path | None,
    truth: Path | None,
    device: DeviceChoice,
    brain_mask: Path,
    as_json: bool,
) -> None:
    """Try the model in FOLDER on seeded noise, or on an image.

    Without --input the self-test: mean score and share of voxels of each output channel, compared
    with the record of the import where there is one. With --input the volume of each label and
    region, and with --truth how well they agree (Dice).
    """
    from inference import manifest
    from node import model_trial

    if truth is not None and image is None:
        raise click.UsageError("--truth goes with --input")
    found = manifest.load(folder)
    if image is None:
        _print_self_test(found, model_trial.of_noise(found), as_json=as_json)
        return
    trial = model_trial.of_image(found, image, truth, device=device, mask_folder=brain_mask)
    _print_trial(found, trial, as_json=as_json)


def _print_self_test(found: Manifest, measured: SelfTest, *, as_json: bool) -> None:
    recorded = found.self_test is not None
    if as_json:
        content = {"model": found.model_id, "as_recorded": recorded or None}
        click.echo(json.dumps({**content, **measured.model_dump()}, indent=2))
        return
    verdict = "as recorded" if recorded else "nothing recorded to compare with"
    click.echo(f"{found.model_id}: seeded noise gives what follows, {verdict}")
    click.echo("  output channel   mean score   share of voxels")
    pairs = zip(measured.score_means, measured.shares, strict=True)
    for channel, (mean, share) in enumerate(pairs):
        click.echo(f"  {channel:>14}{mean:>13.4f}{share:>18.4f}")


def _print_trial(found: Manifest, trial: Trial, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"model": found.model_id, **asdict(trial)}, indent=2))
        return
    click.echo(f"{found.model_id}")
    for note in trial.notes:
        click.echo(f"  {note}")
    for one in trial.findings:
        line = f"  {'region' if one.is_region else 'label':<7}{one.name:<34}"
        line += f"{one.volume_ml:>9.2f} mL"
        if one.truth_ml is not None:
            dice = "-" if one.dice is None else f"{one.dice:.3f}"
            line += f"   truth{one.truth_ml:>9.2f} mL   Dice {dice}"
        click.echo(line)
