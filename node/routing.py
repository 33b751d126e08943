"""Which route a study takes: the first whose sender and attributes are as asked.

What is decided is written into the case as it closes (`Ledger.close_case`) and holds for it from
then on, whatever becomes of the settings.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset

from converters.volume import Role
from node.cases import CaseRoute, Sender, Transport
from node.door_errors import RouteReferenceError, RouteSenderError
from node.peers import Destination
from node.settings import Settings
from node.site_rules import SENDER, Route


def check(settings: Settings, roles: Iterable[Role]) -> None:
    """Refuse routes that could not be taken.

    Parameters
    ----------
    settings : Settings
        Of the node.
    roles : iterable of str
        Inputs of the model.

    Raises
    ------
    RouteSenderError
        A route sends back to the sender, who may be one that is no destination.
    RouteReferenceError
        A route wants the result on a series that is no input.
    """
    titles = {one.ae_title for one in _answering(settings.destinations)}
    for route in settings.routes:
        if route.reference and route.reference not in (known := tuple(roles)):
            raise RouteReferenceError(rule=route.name, among=", ".join(known))
        if SENDER not in (route.destinations or ()):
            continue
        senders = route.calling_ae_titles or settings.receive.calling_ae_titles
        unknown = [one for one in senders if one not in titles]
        if unknown or not senders:
            raise RouteSenderError(rule=route.name, among=", ".join(unknown) or "anybody")


def decide(settings: Settings, senders: Sequence[Sender], header: Dataset) -> CaseRoute | None:
    """Return the route of a study; None where the settings have no routes at all.

    Parameters
    ----------
    settings : Settings
        Of the node.
    senders : sequence of Sender
        Who sent instances of it; each condition on the sender has to hold for one and the same.
    header : Dataset
        Of one image.
    """
    everybody = tuple(one.name for one in settings.destinations)
    for route in settings.routes:
        rule = route.as_rule()
        sender = next((one for one in senders or (_NOBODY,) if _is_from(route, one)), None)
        if sender is None or (rule is not None and not rule.holds(header)):
            continue
        names = everybody if route.destinations is None else route.destinations
        places = [place for name in names for place in _places(name, sender, settings)]
        return CaseRoute(
            rule=route.name,
            destinations=tuple(dict.fromkeys(places)),
            reference_role=route.reference,
            models=route.models,
        )
    return CaseRoute(rule="", destinations=everybody) if settings.routes else None


_NOBODY = Sender(calling_ae_title="")


def _is_from(route: Route, sender: Sender) -> bool:
    """Say whether a sender is as a route asks."""
    if route.called_ae_titles and sender.called_ae_title not in route.called_ae_titles:
        return False
    if route.calling_ae_titles and sender.calling_ae_title not in route.calling_ae_titles:
        return False
    networks = [ipaddress.ip_network(one, strict=False) for one in route.calling_addresses]
    if not networks:
        return True
    return bool(sender.calling_address) and any(
        ipaddress.ip_address(sender.calling_address) in network for network in networks
    )


def _places(name: str, sender: Sender, settings: Settings) -> list[str]:
    """Return the destinations that a word of a route means."""
    if name != SENDER:
        return [name]
    known = _answering(settings.destinations)
    return [one.name for one in known if one.ae_title == sender.calling_ae_title]


def _answering(destinations: Iterable[Destination]) -> list[Destination]:
    """Return those that have an AE title."""
    return [one for one in destinations if one.transport is Transport.DIMSE]


def words(route: Route) -> str:
    """Return a route in words, for `neuroseg doctor`."""
    asked = [
        f"{what} {' or '.join(values)}"
        for what, values in (
            ("called", route.called_ae_titles),
            ("from", route.calling_ae_titles),
            ("at", route.calling_addresses),
            ("by", tuple(route.where)),
        )
        if values
    ]
    places = "all destinations" if route.destinations is None else ", ".join(route.destinations)
    grid = f", on the grid of {route.reference}" if route.reference else ""
    models = "" if route.models is None else f", by {', '.join(route.models) or 'no model'}"
    return f"{', '.join(asked) or 'whatever else comes'}: to {places or 'nobody'}{grid}{models}"
