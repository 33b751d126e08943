"""Find the declared network's parameters among those of a checkpoint; all of them, or refuse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from torch import Size, Tensor

from inference.errors import ModelImportError

NormKind: TypeAlias = Literal["instance", "batch", "affine"]

# Parts of a name that wrappers put anywhere into it: torch.compile, FSDP, activation checkpointing.
_WRAPPERS: Final = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# Words in a name's part that mark a copy of the network, or numbers of the training.
_COPIES: Final = ("ema", "averaged", "teacher", "shadow", "swa")
_TRAINING: Final = (*_COPIES, "loss", "criterion", "metric", "metrics")
_NAMED: Final = 3  # parameters named in a refusal
_UNET_NORM: Final = ".adn.N."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """The network's parameters, and how they were found.

    Parameters
    ----------
    parameters : dict of Tensor
        Under the network's names; every one of them, and no other.
    stripped, added : str
        What was taken from the front of the checkpoint's names, and put there instead.
    ignored : tuple of str
        Names of the checkpoint that are not the network's.
    """

    parameters: dict[str, Tensor]
    stripped: str
    added: str
    ignored: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Prefixes:
    stripped: str
    added: str

    def source_of(self, wanted: str) -> str | None:
        """Return the checkpoint's name of a parameter of the network."""
        if not wanted.startswith(self.added):
            return None
        return self.stripped + wanted.removeprefix(self.added)

    @property
    def is_copy(self) -> bool:
        return _speaks_of(self.stripped, _COPIES)


def fit(
    found: Mapping[str, Tensor], wanted: Mapping[str, Size], *, prefix: str | None = None
) -> Fit:
    """Return the parameters of a network out of a checkpoint.

    Parameters
    ----------
    found : mapping of str to Tensor
        Parameters under the checkpoint's names: below prefixes of any depth (``net.``,
        ``module.net.``), with the parts that wrappers insert, or with a prefix less than the
        network's own.
    wanted : mapping of str to Size
        Names and shapes of the network.
    prefix : str, optional
        Which prefix of the checkpoint to take; needed where several networks fit.

    Raises
    ------
    ModelImportError
        No prefix gives every parameter with its shape, several do, or a parameter beside them
        says that the trained network had more than the declared one.

    Notes
    -----
    A copy of the network made by weight averaging is taken only by its prefix, or where there is
    nothing else.
    """
    plain = _unwrapped(found)
    candidates = _candidates(plain, wanted)
    if prefix is not None:
        candidates = {one for one in candidates if one.stripped == _as_prefix(prefix)}
    whole = [one for one in candidates if _is_whole(one, plain, wanted)]
    chosen = _single(whole) if whole else None
    if chosen is None:
        raise ModelImportError(reason=_shortfall(candidates, plain, wanted))
    sources = {name: chosen.source_of(name) or "" for name in wanted}
    ignored = tuple(sorted(plain.keys() - set(sources.values())))
    _refuse_more(ignored, chosen)
    return Fit(
        parameters={name: plain[source] for name, source in sources.items()},
        stripped=chosen.stripped,
        added=chosen.added,
        ignored=ignored,
    )


def norm_of_unet(names: Iterable[str]) -> NormKind:
    """Return which norm layers the names of a MONAI ``UNet`` show.

    Returns
    -------
    str
        ``instance`` where norm layers have no parameters, ``batch`` where they have running
        statistics; ``affine`` where they have weights alone, which instance norm with parameters
        and group norm share.
    """
    own = [name for name in names if _UNET_NORM in name]
    if not own:
        return "instance"
    return "batch" if any(name.endswith(".running_mean") for name in own) else "affine"


def _unwrapped(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the parameters without the parts of names that wrappers insert."""
    plain: dict[str, Tensor] = {}
    for name, tensor in found.items():
        short = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
        if short in plain:
            raise ModelImportError(reason=f"{short} stands in it twice, wrapped and plain")
        plain[short] = tensor
    return plain


def _as_prefix(prefix: str) -> str:
    plain = ".".join(part for part in prefix.split(".") if part and part not in _WRAPPERS)
    return f"{plain}." if plain else ""


def _candidates(found: Mapping[str, Tensor], wanted: Mapping[str, Size]) -> set[_Prefixes]:
    """Return the prefixes that give the network's first parameter, whatever its shape."""
    anchor = next(iter(wanted)).split(".")
    candidates = set()
    for name in found:
        parts = name.split(".")
        shared = 0
        while shared < min(len(parts), len(anchor)) and parts[-1 - shared] == anchor[-1 - shared]:
            shared += 1
        if shared:
            stripped, added = parts[: len(parts) - shared], anchor[: len(anchor) - shared]
            candidates.add(_Prefixes(_joined(stripped), _joined(added)))
    return candidates


def _joined(parts: list[str]) -> str:
    return "".join(f"{part}." for part in parts)


def _is_whole(one: _Prefixes, found: Mapping[str, Tensor], wanted: Mapping[str, Size]) -> bool:
    return all(
        (tensor := found.get(one.source_of(name) or "")) is not None and tensor.shape == shape
        for name, shape in wanted.items()
    )


def _hits(one: _Prefixes, found: Mapping[str, Tensor], wanted: Mapping[str, Size]) -> int:
    return len(wanted) - len(_missing(one, found, wanted)) - len(_misshapen(one, found, wanted))


def _missing(one: _Prefixes, found: Mapping[str, Tensor], wanted: Mapping[str, Size]) -> list[str]:
    return [name for name in wanted if one.source_of(name) not in found]


def _misshapen(
    one: _Prefixes, found: Mapping[str, Tensor], wanted: Mapping[str, Size]
) -> list[str]:
    pairs = ((name, found.get(one.source_of(name) or "")) for name in wanted)
    return [name for name, tensor in pairs if tensor is not None and tensor.shape != wanted[name]]


def _single(whole: list[_Prefixes]) -> _Prefixes:
    """Return the one that is meant."""
    left = [one for one in whole if not one.is_copy] or whole
    if len(left) > 1:
        names = ", ".join(sorted(one.stripped or "(none)" for one in left))
        raise ModelImportError(reason=f"several networks in it fit, say which prefix: {names}")
    return left[0]


def _shortfall(
    candidates: set[_Prefixes], found: Mapping[str, Tensor], wanted: Mapping[str, Size]
) -> str:
    """Return in which way the nearest candidate does not fit."""
    nearest = max(
        candidates, key=lambda one: (_hits(one, found, wanted), one.stripped), default=None
    )
    if nearest is None:
        return "none of its parameters is named like the network's"
    missing = _missing(nearest, found, wanted)
    misshapen = _misshapen(nearest, found, wanted)
    below = f"below {nearest.stripped or 'the top'}"
    parts = [
        f"{len(names)} of {len(wanted)} parameters {what}: {', '.join(names[:_NAMED])}"
        for what, names in (("missing", missing), ("of another shape", misshapen))
        if names
    ]
    return f"{below} {'; '.join(parts)}"


def _refuse_more(ignored: tuple[str, ...], chosen: _Prefixes) -> None:
    """Refuse a checkpoint whose network has more parameters than the declared one."""
    more = [
        name
        for name in ignored
        if name.startswith(chosen.stripped)
        and not _speaks_of(name.removeprefix(chosen.stripped).partition(".")[0], _TRAINING)
    ]
    if more:
        shown = ", ".join(more[:_NAMED])
        raise ModelImportError(
            reason=f"{len(more)} parameters that the declared network does not have: {shown}"
        )


def _speaks_of(name: str, words: tuple[str, ...]) -> bool:
    return any(word in words for part in name.lower().split(".") for word in part.split("_"))
