"""A channel that cannot work, or that would leak, is refused when the node starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from node import settings
from node.errors import ConfigError

MAIL = "[notify.email]\nhost = 'm'\nsender = 'a@b'\n"
WHOLE = f"{MAIL}recipients = ['c@d']\n"


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("[notify]\nevents = ['case.lost']", "notify.events"),
        ("[notify]\npage_url = 'https://u:p@node'", "page_url"),
        ("[notify.webhook]\nurl = 'https://it'", "a secret or a secret_file"),
        ("[notify.webhook]\nurl = 'https://it'\nsecret = 'short'", "at least 16"),
        ("[notify.webhook]\nurl = 'https://u:p@it'\nsecret_file = 's'", "without credentials"),
        ("[notify.webhook]\nurl = 'ftp://it'\nsecret_file = 's'", "http"),
        (MAIL, "recipients"),
        (f"{WHOLE}port = 0", "port"),
        ("[notify.email]\nhost = 'm'\nsender = 'A <a@b>'\nrecipients = ['c@d']", "bare"),
        (f'{MAIL}recipients = ["c@d\\nBcc: e@f"]', "bare"),
        (f"{WHOLE}username = 'u'", "both username and password"),
        (f"{WHOLE}username = 'u'\npassword_file = 'p'\nsecurity = 'none'", "in the clear"),
    ],
)
def test_a_channel_is_refused(tmp_path: Path, lines: str, problem: str) -> None:
    path = tmp_path / "node.toml"
    path.write_text(lines, encoding="utf-8")
    with pytest.raises(ConfigError, match=problem):
        settings.load(path)


def test_secrets_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "node.toml"
    path.write_text(f"[notify.webhook]\nurl = 'https://it'\n{WHOLE}username = 'u'\n")
    monkeypatch.setenv("NEUROSEG_NOTIFY__WEBHOOK__SECRET", "sixteen-or-more-characters")
    monkeypatch.setenv("NEUROSEG_NOTIFY__EMAIL__PASSWORD", "open-sesame")
    loaded = settings.load(path)
    assert loaded.notify.webhook.secret.get_secret_value() == "sixteen-or-more-characters"
    assert loaded.notify.email.password.get_secret_value() == "open-sesame"
    shown = repr(loaded) + loaded.model_dump_json()
    assert "sixteen" not in shown
    assert "sesame" not in shown
