"""Parameters are found below any prefix; all of them or none."""

from __future__ import annotations

import pytest
import torch
from torch import Size, Tensor

from inference import fitting
from inference.errors import ModelImportError

WANTED = {
    "model.0.conv.weight": Size([2, 3]),
    "model.0.conv.bias": Size([2]),
    "model.1.conv.weight": Size([4, 2]),
}


def own(start: float = 0.0) -> dict[str, Tensor]:
    return {name: torch.full(shape, start) for name, shape in WANTED.items()}


def below(prefix: str, start: float = 0.0) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in own(start).items()}


@pytest.mark.parametrize(
    ("prefix", "stripped"),
    [
        ("", ""),
        ("net.", "net."),
        ("model.", "model."),
        ("model.net.", "model.net."),
        ("model.net.model.", "model.net.model."),
        ("module.net.module.", "module.net.module."),
        ("net._orig_mod.", "net."),
        ("_orig_mod.module.", "module."),
        ("_fsdp_wrapped_module.net.", "net."),
        ("a.b.c.d.e.", "a.b.c.d.e."),
    ],
)
def test_any_prefix_is_found(prefix: str, stripped: str) -> None:
    found = fitting.fit(below(prefix), WANTED)
    assert (found.stripped, found.added, found.ignored) == (stripped, "", ())
    assert list(found.parameters) == list(WANTED)


@pytest.mark.parametrize("outer", ["", "net.", "net._orig_mod."])
def test_a_network_saved_from_inside_itself_gets_its_prefix_back(outer: str) -> None:
    inner = {outer + name.removeprefix("model."): tensor for name, tensor in own().items()}
    found = fitting.fit(inner, WANTED)
    assert (found.stripped, found.added) == (outer.replace("_orig_mod.", ""), "model.")


def test_a_wrapper_inside_the_network_is_seen_through() -> None:
    wrapped = {f"net.{name.replace('conv', '_orig_mod.conv')}": one for name, one in own().items()}
    assert fitting.fit(wrapped, WANTED).stripped == "net."
    with pytest.raises(ModelImportError, match="twice"):
        fitting.fit({**wrapped, **below("net.")}, WANTED)


@pytest.mark.parametrize("copy", ["ema.", "net_ema.module.", "ema_model.net.", "teacher.", "swa."])
def test_the_trained_network_is_taken_and_not_its_average(copy: str) -> None:
    extra = {"loss.weight": torch.ones(4), "net_averaged.n": torch.ones(())}
    both = {**below(copy, 1.0), **extra, **below("net.", 2.0)}
    found = fitting.fit(both, WANTED)
    assert found.stripped == "net."
    assert {float(one.mean()) for one in found.parameters.values()} == {2.0}
    assert set(found.ignored) == {*below(copy), *extra}
    chosen = fitting.fit(both, WANTED, prefix=copy.removesuffix("."))
    assert {float(one.mean()) for one in chosen.parameters.values()} == {1.0}
    assert fitting.fit(below(copy, 1.0), WANTED).stripped == copy


def test_numbers_of_the_training_beside_a_network_without_prefix_are_left_aside() -> None:
    found = fitting.fit({**own(), **below("ema."), "criterion.weight": torch.ones(4)}, WANTED)
    assert found.stripped == ""
    assert len(found.ignored) == 4


def test_two_networks_that_fit_are_refused_until_one_is_named() -> None:
    both = {**below("coarse."), **below("fine.", 1.0)}
    with pytest.raises(ModelImportError, match=r"which prefix: coarse\., fine\."):
        fitting.fit(both, WANTED)
    assert fitting.fit(both, WANTED, prefix="fine").stripped == "fine."
    with pytest.raises(ModelImportError, match="none of its parameters"):
        fitting.fit(both, WANTED, prefix="other")


def test_what_is_missing_of_another_shape_or_too_much_is_named() -> None:
    short = below("net.")
    del short["net.model.0.conv.bias"]
    with pytest.raises(ModelImportError, match=r"1 of 3 parameters missing: model\.0\.conv\.bias"):
        fitting.fit(short, WANTED)
    wide = {**below("net."), "net.model.0.conv.bias": torch.zeros(5)}
    with pytest.raises(ModelImportError, match=r"1 of 3 .* another shape: model\.0\.conv\.bias"):
        fitting.fit(wide, WANTED)
    more = {**below("net."), "net.head.weight": torch.zeros(5)}
    with pytest.raises(ModelImportError, match=r"does not have: net\.head\.weight"):
        fitting.fit(more, WANTED)
    with pytest.raises(ModelImportError, match="none of its parameters"):
        fitting.fit({"x": torch.zeros(1)}, WANTED)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("net.model.0.conv.unit0.conv.weight", "net.model.0.conv.unit0.adn.A.weight"), "instance"),
        (("model.0.adn.N.weight", "model.0.adn.N.running_mean"), "batch"),
        (("model.0.adn.N.weight", "model.0.adn.N.bias"), "affine"),
    ],
)
def test_names_show_the_norm_layers(names: tuple[str, ...], kind: str) -> None:
    assert fitting.norm_of_unet(names) == kind
