"""The first route that holds decides; routes that could not be taken stop the node."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from pydicom.dataset import Dataset

from node import routing
from node.cases import CaseRoute, Sender
from node.door_errors import RouteReferenceError, RouteSenderError
from node.settings import Settings

ROLES = ("flair", "t1", "t1gd", "t2")
SCANNER = Sender(calling_ae_title="MR3T", called_ae_title="CLINIC", calling_address="10.1.2.3")
STRANGER = Sender(calling_ae_title="STOW-RS")
PACS: dict[str, Any] = {"name": "pacs", "transport": "dimse", "host": "pacs", "port": 104}
DESTINATIONS = [
    PACS,
    {**PACS, "name": "scanner", "ae_title": "MR3T"},
    {"name": "web", "transport": "stow", "url": "http://pacs/dicom-web"},
]


def _settings(*routes: dict[str, Any], **more: object) -> Settings:
    values = [{"name": f"route {number}", **one} for number, one in enumerate(routes)]
    return Settings.model_validate({"destinations": DESTINATIONS, "routes": values, **more})


def _header(**values: str) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def test_without_routes_nothing_is_written_down() -> None:
    assert routing.decide(_settings(), [SCANNER], Dataset()) is None


@pytest.mark.parametrize(
    ("asked", "is_taken"),
    [
        ({"called_ae_titles": ["CLINIC"]}, True),
        ({"called_ae_titles": ["OTHER"]}, False),
        ({"calling_ae_titles": ["CT", "MR3T"]}, True),
        ({"calling_ae_titles": ["CT"]}, False),
        ({"calling_addresses": ["10.1.0.0/16"]}, True),
        ({"calling_addresses": ["10.2.0.0/16", "::1"]}, False),
        ({"where": {"StationName": {"matches": "^mr3t"}}}, True),
        ({"where": {"StationName": {"matches": "^ct"}}}, False),
        ({"where": {"InstitutionName": {"is_present": True}}}, False),
        ({"called_ae_titles": ["CLINIC"], "calling_ae_titles": ["STOW-RS"]}, False),
    ],
)
def test_a_route_is_taken_where_all_that_it_asks_holds(
    asked: dict[str, Any], *, is_taken: bool
) -> None:
    settings = _settings({**asked, "destinations": ["web"]}, {"destinations": []})
    found = routing.decide(settings, [STRANGER, SCANNER], _header(StationName="MR3T-1"))
    assert found is not None
    assert (found.rule, found.destinations) == (
        ("route 0", ("web",)) if is_taken else ("route 1", ())
    )


def test_where_no_route_holds_and_where_none_is_named_everybody_gets_the_result() -> None:
    settings = _settings({"called_ae_titles": ["OTHER"], "destinations": []})
    everybody = ("pacs", "scanner", "web")
    expected = CaseRoute(rule="", destinations=everybody)
    assert routing.decide(settings, [SCANNER], Dataset()) == expected
    named = routing.decide(_settings({"reference": "flair"}), [], Dataset())
    assert named == CaseRoute(rule="route 0", destinations=everybody, reference_role="flair")


def test_the_sender_is_the_destination_that_has_its_title() -> None:
    route = {"calling_ae_titles": ["MR3T"], "destinations": ["sender", "pacs", "scanner"]}
    settings = _settings(route)
    routing.check(settings, ROLES)
    found = routing.decide(settings, [STRANGER, SCANNER], Dataset())
    assert found is not None
    assert found.destinations == ("scanner", "pacs")


@pytest.mark.parametrize(
    ("route", "receive"),
    [
        ({"destinations": ["sender"]}, {}),
        ({"destinations": ["sender"], "calling_ae_titles": ["MR3T", "CT"]}, {}),
        ({"destinations": ["sender"]}, {"calling_ae_titles": ["CT"]}),
    ],
)
def test_a_sender_who_may_be_no_destination_stops_the_node(
    route: dict[str, Any], receive: dict[str, Any]
) -> None:
    with pytest.raises(RouteSenderError):
        routing.check(_settings(route, receive=receive), ROLES)


def test_a_reference_that_is_no_input_stops_the_node() -> None:
    with pytest.raises(RouteReferenceError):
        routing.check(_settings({"reference": "dwi"}), ROLES)


@pytest.mark.parametrize(
    ("route", "receive"),
    [
        ({"destinations": ["nowhere"]}, {}),
        ({"calling_addresses": ["10.1.2.3.4"]}, {}),
        ({"where": {"NoSuchThing": {"matches": "a"}}}, {}),
        ({"called_ae_titles": ["CLINIC"]}, {"check_called_ae_title": True}),
    ],
)
def test_a_route_that_can_never_be_taken_is_refused(
    route: dict[str, Any], receive: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError):
        _settings(route, receive=receive)


def test_a_route_is_said_in_words() -> None:
    settings = _settings({"calling_ae_titles": ["MR3T"], "destinations": ["pacs"]}, {})
    said = [routing.words(one) for one in settings.routes]
    assert said == ["from MR3T: to pacs", "whatever else comes: to all destinations"]
