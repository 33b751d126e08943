"""The one public function of this package: volumes and a model give a label map."""

from __future__ import annotations

from collections.abc import Sequence

from converters.volume import LabelMap, Role, Volume
from inference import postprocess, preprocess, windows
from inference.errors import ChannelMissingError
from inference.model import LoadedModel
from inference.windows import Progress


def predict(
    volumes: Sequence[Volume],
    model: LoadedModel,
    *,
    reference_role: Role,
    progress: Progress | None = None,
) -> LabelMap:
    """Return what the model finds, on the grid of the reference volume.

    Parameters
    ----------
    volumes : sequence of Volume
        One per input of the model, in any order, each on its own grid, all in one patient frame.
        Volumes of other roles are left aside.
    model : LoadedModel
        The model to run.
    reference_role : str
        Role of the volume on whose grid the labels are wanted.
    progress : callable, optional
        Called with the windows done and the windows in all.

    Returns
    -------
    LabelMap
        Labels, segments and model id as the manifest declares them. The same volumes give the
        same labels on the same machine.

    Raises
    ------
    ChannelMissingError
        An input of the model is absent, or the reference is.
    DeviceMemoryError
        Too little memory.
    InvalidOutputError
        The network's output is not finite or has the wrong shape.
    """
    manifest = model.manifest
    by_role = {volume.role: volume for volume in volumes}
    needed = (*manifest.roles, reference_role)
    if not by_role.keys() >= set(needed):
        expected = ", ".join(dict.fromkeys(needed))
        raise ChannelMissingError(expected=expected, found=", ".join(sorted(by_role)) or "none")
    ordered = [by_role[role] for role in manifest.roles]
    prepared = preprocess.prepare(ordered, by_role[reference_role].grid, manifest)
    scores = windows.run(prepared.channels, model, progress)
    labels = postprocess.labels_on_reference(
        scores, prepared.grid, prepared.reference, manifest.output_indices
    )
    return LabelMap(
        labels=labels,
        grid=prepared.reference,
        segments=manifest.segments,
        model_id=manifest.model_id,
    )
