"""The account's zone: its names, its sources, and which brand needs one."""

from __future__ import annotations

from datetime import UTC, timedelta, timezone
from zoneinfo import ZoneInfo, available_timezones

import pytest

from servetel_async import IST, Brand, ConfigurationError, ServetelClient
from servetel_async.profiles import DEFAULT_ZONE, Sources, choose_zone, read_sources
from servetel_async.protocol.zone_names import read_zone

LONDON = ZoneInfo("Europe/London")
NAMES = {
    "Europe/London": LONDON,
    "europe/london": LONDON,
    " Europe/London ": LONDON,
    "UTC": ZoneInfo("UTC"),
    "Asia/Kolkata": ZoneInfo("Asia/Kolkata"),
    "IST": IST,
    "ist": IST,
    "+05:30": IST,
    "+0530": IST,
    "UTC+05:30": IST,
    "gmt+01:00": timezone(timedelta(hours=1)),
    "-03:30": timezone(-timedelta(hours=3, minutes=30)),
    "+00:00": UTC,
    "+14:00": timezone(timedelta(hours=14)),
    "-14:00": timezone(-timedelta(hours=14)),
}


@pytest.mark.parametrize(("name", "zone"), NAMES.items(), ids=NAMES)
def test_a_name(name, zone):
    """A zone is a name of the time-zone database in any case, or a fixed offset; India's offset is ``IST``."""
    assert read_zone(name) == zone
    assert (read_zone(name) is IST) == (zone is IST)


def test_every_name_of_the_database():
    """Each name is a zone."""
    assert {read_zone(name).key for name in available_timezones()} == available_timezones()


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "Europe/Lodnon", "Europe", "Europe/", "BST", "London", "05:30", "+5", "+5:30", "+05:60", "+14:01"),
        *("-15:00", "+99:99", "+05:30:00", "UTC+", "../../etc/passwd", "/etc/localtime", "right/Europe/London"),
        *("posixrules", "Europe/London\0", "\ud800", "+\u0660\u0665:30"),
    ],
    ids=repr,
)
def test_what_is_no_zone(name):
    """The error says what a zone looks like and does not repeat the value."""
    with pytest.raises(ConfigurationError) as refused:
        read_zone(name)
    assert refused.value.what == "there is no such zone"
    assert "an offset from -14:00 to +14:00" in refused.value.why
    assert "Europe/London or +05:30" in refused.value.fix
    assert refused.value.__cause__ is refused.value.__context__ is None


UK = Brand.ACEFONE_UK.base_url
#: The argument, the address, the value of profile or variable, the variable alone; the zone.
CHOICES = {
    "the argument": (LONDON, UK, "Asia/Kolkata", "Asia/Tokyo", LONDON),
    "India's as an argument": (IST, UK, None, None, IST),
    "what was read": (DEFAULT_ZONE, UK, "Europe/London", None, LONDON),
    "the variable": (DEFAULT_ZONE, UK, None, "Europe/London", LONDON),
    "an Indian brand with another zone": (
        DEFAULT_ZONE,
        Brand.SERVETEL.base_url,
        "Asia/Tokyo",
        None,
        ZoneInfo("Asia/Tokyo"),
    ),
    "Servetel": (DEFAULT_ZONE, Brand.SERVETEL.base_url, None, None, IST),
    "Smartflo": (DEFAULT_ZONE, Brand.SMARTFLO.base_url, None, None, IST),
    "Acefone India": (DEFAULT_ZONE, Brand.ACEFONE.base_url, None, None, IST),
    "another address": (DEFAULT_ZONE, "https://proxy.example/acefone.com", None, None, IST),
    "an address of numbers": (DEFAULT_ZONE, "http://[::1]:8000", None, None, IST),
}


@pytest.mark.parametrize(("given", "address", "found", "variable", "zone"), CHOICES.values(), ids=CHOICES)
def test_where_a_zone_comes_from(monkeypatch, given, address, found, variable, zone):
    """The argument, then the variable or the profile, then the brand; India's for any other address."""
    if variable is not None:
        monkeypatch.setenv("SERVETEL_ZONE", variable)
    assert (
        choose_zone(given, address, Sources(zone=found)) is zone
        or choose_zone(given, address, Sources(zone=found)) == zone
    )


@pytest.mark.parametrize(
    "address",
    [
        UK,
        f"{UK}/",
        "HTTPS://API-ACCOUNT-UK.ACEFONE.COM:443",
        "https://api-account-uk.acefone.com./v2",
        UK.replace("s:", ":"),
    ],
    ids=repr,
)
def test_acefone_uk_needs_a_zone(address):
    """In any spelling of its address, it is refused without a zone, and the fix says what to give."""
    with pytest.raises(ConfigurationError) as refused:
        choose_zone(DEFAULT_ZONE, address, Sources())
    assert refused.value.what == "the account's zone is not given"
    assert "not in India" in refused.value.why
    assert 'zone=ZoneInfo("Europe/London")' in refused.value.fix
    assert "SERVETEL_ZONE" in refused.value.fix


#: How a client gets that brand.
WAYS = {
    "a brand": {"token": "token-123456", "brand": Brand.ACEFONE_UK},
    "a brand by name": {"token": "token-123456", "brand": "acefone-uk"},
    "an address": {"token": "token-123456", "base_url": UK},
    "a variable": {},
    "a profile": {},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_client_of_acefone_uk(monkeypatch, tmp_path, way):
    """It is refused without a zone; an argument, a variable or a profile may give one."""
    config, brand = tmp_path / "config.toml", '[profiles.default]\ntoken = "token-123456"\nbrand = "acefone-uk"\n'
    if way == "a profile":
        monkeypatch.setenv("SERVETEL_CONFIG", str(config))
    if way == "a variable":
        monkeypatch.setenv("SERVETEL_TOKEN", "token-123456")
        monkeypatch.setenv("SERVETEL_BASE_URL", UK)
    config.write_text(brand)
    config.chmod(0o600)
    with pytest.raises(ConfigurationError, match="The account's zone is not given"):
        ServetelClient(**WAYS[way])
    assert ServetelClient(**WAYS[way], zone=LONDON).zone is LONDON
    assert ServetelClient(**WAYS[way], zone=IST).zone is IST
    if way == "a profile":
        config.write_text(f'{brand}zone = "Europe/Paris"\n')
        assert ServetelClient().zone == ZoneInfo("Europe/Paris")
    monkeypatch.setenv("SERVETEL_ZONE", "+01:00")
    assert ServetelClient(**WAYS[way]).zone == timezone(timedelta(hours=1))


def test_a_variable_wins_over_the_profile(tmp_path):
    """It wins like every other variable."""
    config = tmp_path / "config.toml"
    config.write_text('[profiles.default]\nzone = "Europe/Paris"\n')
    config.chmod(0o600)
    told = {"SERVETEL_CONFIG": str(config)}
    assert read_sources(told).zone == "Europe/Paris"
    assert read_sources({**told, "SERVETEL_ZONE": "Europe/London"}).zone == "Europe/London"


@pytest.mark.parametrize("variable", ["Europe/Lodnon", "canary"])
def test_a_variable_that_names_no_zone(monkeypatch, variable):
    """The constructor refuses it, even for a brand that needs no zone."""
    monkeypatch.setenv("SERVETEL_ZONE", variable)
    with pytest.raises(ConfigurationError, match="There is no such zone"):
        ServetelClient("token-123456", brand="servetel")
    assert ServetelClient("token-123456", brand="servetel", zone=IST).zone is IST
