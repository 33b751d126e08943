"""Settings: one documented file, the environment above it, secrets never shown."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from node import settings
from node.cases import Transport
from node.errors import ConfigError
from node.peers import Destination
from node.settings import Settings
from node.site_rules import Route, SeriesCondition, SeriesRule

FILE = Path(__file__).parents[3] / "config" / "node.toml"
SECRET = "hunter2-hunter2"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        for variable in _variables(name.upper()):
            monkeypatch.delenv(variable, raising=False)


def _variables(branch: str) -> list[str]:
    prefix = f"NEUROSEG_{branch}"
    return [name for name in os.environ if name == prefix or name.startswith(f"{prefix}__")]


def _plain(value: Any) -> Any:  # noqa: ANN401 - any setting
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _tree(model: BaseModel) -> dict[str, Any]:
    return {
        name: _tree(value)
        if isinstance(value := getattr(model, name), BaseModel)
        else _plain(value)
        for name in type(model).model_fields
    }


def _written(folder: Path, text: str) -> Path:
    path = folder / "node.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_results_are_held_for_the_codes_that_are_named() -> None:
    some = Settings.model_validate({"delivery": {"hold_codes": ["INPUT_MISSING"]}}).delivery
    assert [some.holds(code) for code in ("INPUT_MISSING", "RESULT_UNCERTAIN")] == [True, False]
    every = Settings.model_validate({"delivery": {"hold_codes": ["*"]}}).delivery
    assert every.holds("RESULT_UNCERTAIN")
    assert not Settings().delivery.holds("RESULT_UNCERTAIN")


def test_a_code_that_no_note_has_is_refused(tmp_path: Path) -> None:
    path = _written(tmp_path, '[delivery]\nhold_codes = ["INPUT_MISING"]\n')
    with pytest.raises(ConfigError, match=r"delivery.hold_codes: .*INPUT_MISSING"):
        settings.load(path)


def test_the_file_names_every_setting_with_the_default_of_the_code() -> None:
    documented = tomllib.loads(FILE.read_text(encoding="utf-8"))
    expected = _tree(Settings())
    del expected["destinations"]  # shown as a comment, since the default is none
    del expected["assemble"]["series_rules"], expected["routes"], expected["further_models"]
    assert documented == expected


def test_every_setting_of_a_destination_is_mentioned_in_the_file() -> None:
    text = FILE.read_text(encoding="utf-8")
    example = text[text.index("# [[destinations]]") :]
    for name in Destination.model_fields:
        assert re.search(rf"\b{name}\b", example), name


def test_the_example_destinations_are_valid(tmp_path: Path) -> None:
    text = FILE.read_text(encoding="utf-8")
    example = text[text.index("# [[destinations]]") :]
    lines = [line.removeprefix("# ").removeprefix("#") for line in example.splitlines()]
    loaded = settings.load(_written(tmp_path, "\n".join(lines)))
    assert [one.name for one in loaded.destinations] == ["pacs", "pacs-web", "share"]


def test_every_setting_of_a_route_is_mentioned_in_the_file_and_the_example_is_valid(
    tmp_path: Path,
) -> None:
    text = FILE.read_text(encoding="utf-8")
    example = text[text.index("# [[routes]]") : text.index("# Where results go")]
    for name in Route.model_fields:
        assert re.search(rf"\b{name}\b", example), name
    lines = [line.removeprefix("# ").removeprefix("#") for line in example.splitlines()]
    pacs = "[[destinations]]\nname = 'pacs'\ntransport = 'stow'\nurl = 'http://h/d'"
    assert len(settings.load(_written(tmp_path, "\n".join([*lines, pacs]))).routes) == 1


def test_every_condition_of_a_series_rule_is_mentioned_in_the_file() -> None:
    text = FILE.read_text(encoding="utf-8")
    about = text[text.index("# What the site knows of its series") : text.index("\n[source]")]
    for name in (*SeriesRule.model_fields, *SeriesCondition.model_fields):
        assert re.search(rf"\b{name}\b", about), name


def test_the_example_rules_are_valid(tmp_path: Path) -> None:
    text = FILE.read_text(encoding="utf-8")
    example = text[text.index("# [[assemble.series_rules]]") : text.index("\n[source]")]
    lines = [line.removeprefix("# ").removeprefix("#") for line in example.splitlines()]
    loaded = settings.load(_written(tmp_path, "\n".join(lines)))
    first, second = (one.as_rule() for one in loaded.assemble.series_rules)
    assert (first.role, second.role) == ("flair", None)
    assert set(second.where) == {"StationName", "ProtocolName", "ContrastBolusAgent"}


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("where.SeriesDescripton = { matches = 'a' }", "no DICOM keyword"),
        ("where.SeriesDescription = { matches = '(' }", "no regular expression"),
        ("where.SeriesDescription = { at_least = 1.0 }", "is no number"),
        ("where.EchoTime = { at_least = 2.0, at_most = 1.0 }", "lies above"),
        ("where.EchoTime = {}", "must ask something"),
        ("where.EchoTime = { above = 2.0 }", "Extra inputs"),
        ("where.ReferencedImageSequence = { matches = 'a' }", "only is_present"),
        ("where = {}", "has no condition"),
        ("", "where: Field required"),
        ("role = 'T1 post'\nwhere.EchoTime = { at_least = 2.0 }", "role"),
        ("name = ' '\nwhere.EchoTime = { at_least = 2.0 }", "name"),
    ],
)
def test_a_rule_that_cannot_hold_is_refused_with_its_place(
    tmp_path: Path, lines: str, problem: str
) -> None:
    name = "" if "name" in lines else "name = 'ours'\n"
    role = "" if "role" in lines else "role = 't1'\n"
    text = f"[[assemble.series_rules]]\n{name}{role}{lines}\n"
    with pytest.raises(ConfigError, match=rf"assemble\.series_rules\.0.*{re.escape(problem)}"):
        settings.load(_written(tmp_path, text))


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("transport = 'cfind'\nhost = 'pacs'", "host and port"),
        ("transport = 'qido'\nurl = 'http://u:p@pacs'", "without credentials"),
        ("transport = 'hl7'", "transport"),
    ],
)
def test_a_source_without_a_usable_address_is_refused(
    tmp_path: Path, lines: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        settings.load(_written(tmp_path, f"[source]\n{lines}\n"))


def test_the_shipped_file_loads() -> None:
    assert settings.load(FILE) == Settings()


def test_the_environment_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _written(tmp_path, "[receive]\nport = 104\nae_title = 'FILE'\n")
    monkeypatch.setenv("NEUROSEG_RECEIVE__PORT", "4006")
    loaded = settings.load(path)
    assert (loaded.receive.port, loaded.receive.ae_title) == (4006, "FILE")


@pytest.mark.parametrize(
    "text",
    ["unknown = 1", "[receive]\nprot = 1", "[nowhere]\nport = 1", "[receive]\nport = 'many'"],
)
def test_an_unknown_key_or_a_wrong_value_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        settings.load(_written(tmp_path, text))


@pytest.mark.parametrize("name", ["NEUROSEG_RECEIVE__PROT", "NEUROSEG_RECIEVE__PORT"])
def test_an_unknown_variable_is_refused_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, SECRET)
    with pytest.raises(ConfigError, match=r"(?i)prot|recieve") as caught:
        settings.load(None)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("variable", ["NEUROSEG_DESTINATIONS", "NEUROSEG_JOBS", "NEUROSEG_RECEIVE"])
def test_a_variable_that_is_no_json_is_refused_without_its_value(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, f'[{{"password": "{SECRET}')
    with pytest.raises(ConfigError) as caught:
        settings.load(None)
    assert caught.value.__suppress_context__
    assert SECRET not in str(caught.value)
    assert variable.removeprefix("NEUROSEG_").lower() in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"[receive\n", b"\xff\xfe", b"receive = 1\nreceive = 2"], ids=["open", "bytes", "2"]
)
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "node.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not valid TOML"):
        settings.load(path)


def test_a_file_that_is_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        settings.load(tmp_path / "absent.toml")


@pytest.mark.parametrize("title", ["", " ", "A" * 17, "A\\B", "A\nB"])
def test_an_ae_title_outside_the_standard_is_refused(tmp_path: Path, title: str) -> None:
    escaped = title.replace("\\", "\\\\").replace("\n", "\\n")
    with pytest.raises(ConfigError, match="AE title"):
        settings.load(_written(tmp_path, f'[receive]\nae_title = "{escaped}"\n'))


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("transport = 'dimse'\nhost = 'pacs'", "host and port"),
        ("transport = 'stow'\nurl = 'ftp://pacs'", "url"),
        ("transport = 'fax'", "transport"),
        ("transport = 'stow'\nurl = 'http://a'\nname = 'Ä B'", "name"),
        ("transport = 'stow'\nurl = 'http://a'\ncommitment = true", "DIMSE service"),
    ],
)
def test_a_destination_without_a_usable_address_is_refused(
    tmp_path: Path, lines: str, problem: str
) -> None:
    name = "" if "name" in lines else "name = 'pacs'\n"
    with pytest.raises(ConfigError, match=problem):
        settings.load(_written(tmp_path, f"[[destinations]]\n{name}{lines}\n"))


@pytest.mark.parametrize(
    "lines",
    [
        "tls = true\nca_file = 'a'\ncertificate_file = 'b'",
        "ca_file = 'a'",
        "certificate_file = 'a'\nkey_file = 'b'",
        "tls = true\ncheck_host_name = false",
        "check_host_name = false\nca_file = 'a'",
    ],
)
def test_tls_that_would_protect_nothing_is_refused(tmp_path: Path, lines: str) -> None:
    text = f"[source]\ntransport = 'cfind'\nhost = 'pacs'\nport = 104\n{lines}\n"
    with pytest.raises(ConfigError):
        settings.load(_written(tmp_path, text))


@pytest.mark.parametrize("line", ["", "path = 'results'\n"])
def test_a_folder_without_an_absolute_path_is_refused(tmp_path: Path, line: str) -> None:
    one = f"[[destinations]]\nname = 'share'\ntransport = 'folder'\n{line}"
    with pytest.raises(ConfigError, match="absolute path"):
        settings.load(_written(tmp_path, one))


def test_two_destinations_of_one_name_are_refused(tmp_path: Path) -> None:
    one = "[[destinations]]\nname = 'pacs'\ntransport = 'stow'\nurl = 'http://a'\n"
    with pytest.raises(ConfigError, match="same name"):
        settings.load(_written(tmp_path, one + one))


def test_an_entropy_that_nobody_computes_cannot_be_wanted(tmp_path: Path) -> None:
    one = "[[destinations]]\nname = 'pacs'\ntransport = 'stow'\nurl = 'http://a'\nentropy = true\n"
    with pytest.raises(ConfigError, match="uncertainty is off"):
        settings.load(_written(tmp_path, one))
    found = settings.load(_written(tmp_path, f"[model]\nuncertainty = true\n{one}"))
    assert found.destinations[0].entropy


STOW = "[[destinations]]\nname = 'pacs'\ntransport = 'stow'\nurl = 'http://a'\n"


@pytest.mark.parametrize(
    ("lines", "kinds"),
    [
        ("", {"seg", "report"}),
        ("seg = ['labels', 'regions']", {"seg", "report", "regions"}),
        ("seg = ['regions', 'labelmap']\nsr = false", {"regions", "labelmap"}),
        ("sr = false\npictures = true", {"seg", "picture"}),
    ],
)
def test_a_destination_gets_the_kinds_that_it_names(
    tmp_path: Path, lines: str, kinds: set[str]
) -> None:
    found = settings.load(_written(tmp_path, f"{STOW}{lines}\n"))
    assert found.wanted == found.destinations[0].kinds == kinds


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("seg = []", "at least 1"),
        ("seg = ['mesh']", "'labels', 'regions', 'labelmap' or 'probabilities'"),
        ("seg = ['regions']", "seg lacks labels"),
        ("seg = ['labelmap']\nsr = false\npictures = true", "seg lacks labels"),
        ("seg = ['labels', 'probabilities']", "probabilities is off"),
    ],
)
def test_forms_that_cannot_be_sent_cannot_be_wanted(
    tmp_path: Path, lines: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        settings.load(_written(tmp_path, f"{STOW}{lines}\n"))


def test_probabilities_that_are_computed_can_be_wanted(tmp_path: Path) -> None:
    asked = "[model]\nprobabilities = true\n"
    found = settings.load(_written(tmp_path, f"{asked}{STOW}seg = ['labels', 'probabilities']\n"))
    assert "probabilities" in found.wanted


def test_with_the_report_alone_for_nothing_every_destination_gets_reports(tmp_path: Path) -> None:
    empty = "[delivery]\nempty = 'report'\n"
    assert settings.load(_written(tmp_path, empty + STOW)).delivery.empty == "report"
    with pytest.raises(ConfigError, match="sr = false"):
        settings.load(_written(tmp_path, f"{empty}{STOW}sr = false\n"))


def test_measurements_are_sent_unless_a_destination_does_not_want_them(tmp_path: Path) -> None:
    one = "[[destinations]]\nname = 'pacs'\ntransport = 'stow'\nurl = 'http://a'\n"
    assert settings.load(_written(tmp_path, one)).destinations[0].sr
    assert not settings.load(_written(tmp_path, f"{one}sr = false\n")).destinations[0].sr


def test_secrets_are_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _written(
        tmp_path,
        f"[ledger]\nurl = 'postgresql://u:{SECRET}@db/l'\n[jobs]\nurl = 'postgresql://{SECRET}'\n"
        "[[destinations]]\nname = 'a'\ntransport = 'stow'\nurl = 'http://a'\n"
        f"password = '{SECRET}'\nbearer_token = '{SECRET}'\n"
        f"[notify.webhook]\nurl = 'http://a'\nsecret = '{SECRET}{SECRET}'\n",
    )
    monkeypatch.setenv("NEUROSEG_JOBS__URL", f"postgresql://{SECRET}")
    loaded = settings.load(path)
    shown = repr(loaded) + str(loaded) + loaded.model_dump_json()
    assert SECRET not in shown
    assert loaded.destinations[0].password.get_secret_value() == SECRET
    assert SECRET in loaded.ledger_url
    assert SECRET in loaded.jobs_url


@pytest.mark.parametrize(
    "lines", ["url = ['{0}']", "password = ['{0}']", "password = '{0}'\nport = '{0}'"]
)
def test_no_error_quotes_a_value(tmp_path: Path, lines: str) -> None:
    text = f"[[destinations]]\nname = 'a'\ntransport = 'stow'\n{lines.format(SECRET)}\n"
    with pytest.raises(ConfigError) as caught:
        settings.load(_written(tmp_path, text))
    chain = f"{caught.value!r} {caught.value} {caught.value.__cause__}"
    assert SECRET not in chain


def test_settings_cannot_be_changed() -> None:
    loaded = Settings()
    with pytest.raises(ValueError, match="frozen"):
        loaded.receive.port = 1


def test_databases_lie_in_the_spool_by_default(tmp_path: Path) -> None:
    loaded = settings.load(_written(tmp_path, f"[spool]\npath = '{tmp_path}'\n"))
    assert loaded.ledger_url == f"sqlite:///{tmp_path}/ledger.sqlite"
    assert loaded.jobs_url == f"sqlite:///{tmp_path}/jobs.sqlite"


@pytest.mark.parametrize(
    "url", ["", "http://", "http://[half", "http://host:99999", "https://a:b@c/d", "ftp://host/x"]
)
def test_a_url_that_is_not_whole_or_holds_credentials_is_refused_unquoted(url: str) -> None:
    with pytest.raises(ValidationError, match="without credentials in it") as caught:
        Destination(name="pacs", transport=Transport.STOW, url=url)
    assert not url or url not in str(caught.value)
