"""Settings without an argument: the environment, then a profile; an argument always wins, and the working directory is not read."""

from __future__ import annotations

import os

import pytest

from servetel_async import Brand, ConfigurationError, ServetelClient
from tests.transport.leaks import assert_clean

PROFILES = """
[profiles.default]
token = "default-profile-token"
brand = "smartflo"

[profiles.other]
base_url = "https://other.example.invalid"
token_file = "~/secret"
"""


@pytest.fixture
def home(tmp_path):
    """Our own home directory, which ``clean_environment`` made the home of the tests."""
    (tmp_path / ".config" / "servetel").mkdir(parents=True)
    return tmp_path


def write(file, text: str, mode: int = 0o600):
    file.write_text(text)
    file.chmod(mode)
    return file


def made(**options) -> tuple[str, str]:
    """The address that the client would ask, and its token."""
    client = ServetelClient(**options)
    return client._transport.base_url, str.__str__(client._transport.tokens._token)


def test_the_token_of_the_environment(monkeypatch):
    """``SERVETEL_TOKEN`` is a token like any other; the address is the first brand's."""
    monkeypatch.setenv("SERVETEL_TOKEN", "Bearer environment-token")

    assert made() == (Brand.SERVETEL.base_url, "environment-token")


def test_the_token_file_of_the_environment(monkeypatch, home):
    """``SERVETEL_TOKEN_FILE`` holds the token and may end in a line end."""
    monkeypatch.setenv("SERVETEL_TOKEN_FILE", str(write(home / "token", "file-token-1234\n")))

    assert made()[1] == "file-token-1234"


def test_the_address_of_the_environment(monkeypatch):
    """``SERVETEL_BASE_URL`` is checked like an argument."""
    monkeypatch.setenv("SERVETEL_TOKEN", "environment-token")
    monkeypatch.setenv("SERVETEL_BASE_URL", "https://proxy.example.invalid/api/")
    assert made()[0] == "https://proxy.example.invalid/api"
    monkeypatch.setenv("SERVETEL_BASE_URL", "http://proxy.example.invalid")
    with pytest.raises(ConfigurationError):
        made()


def test_the_default_profile(home):
    """Without any variable, the default profile gives token and address."""
    write(home / ".config/servetel/config.toml", PROFILES)

    assert made() == (Brand.SMARTFLO.base_url, "default-profile-token")


def test_a_named_profile(monkeypatch, home):
    """``SERVETEL_PROFILE`` chooses another profile, whose token is in a file."""
    write(home / ".config/servetel/config.toml", PROFILES)
    write(home / "secret", "other-profile-token")
    monkeypatch.setenv("SERVETEL_PROFILE", "other")

    assert made() == ("https://other.example.invalid", "other-profile-token")


def test_what_is_given_wins_over_what_is_found(monkeypatch, home):
    """Arguments, then the environment, then the profile."""
    write(home / ".config/servetel/config.toml", PROFILES)
    monkeypatch.setenv("SERVETEL_TOKEN", "environment-token")
    assert made() == (Brand.SMARTFLO.base_url, "environment-token")
    monkeypatch.setenv("SERVETEL_BASE_URL", "https://env.example.invalid")
    assert made() == ("https://env.example.invalid", "environment-token")
    assert made(token="given-token-123", brand="acefone") == (Brand.ACEFONE.base_url, "given-token-123")


def test_the_address_of_a_profile_gets_no_other_token(monkeypatch, home):
    """A token that was given, or that the environment holds, does not go to a server that only the profile names."""
    write(home / ".config/servetel/config.toml", PROFILES)
    monkeypatch.setenv("SERVETEL_PROFILE", "other")
    with pytest.raises(ConfigurationError, match="from the call, and the address from the profile"):
        made(token="given-token-123")
    monkeypatch.setenv("SERVETEL_TOKEN", "environment-token")
    with pytest.raises(ConfigurationError, match="from the environment, and the address from the profile"):
        made()
    url = "https://other.example.invalid"
    assert made(token="given-token-123", base_url=url) == (url, "given-token-123")


@pytest.mark.parametrize("where", ["variable", "profile"])
def test_a_token_file_beside_a_token_may_be_missing(where, monkeypatch, home):
    """The argument wins, so the file is not read: a missing file is not an error."""
    if where == "variable":
        monkeypatch.setenv("SERVETEL_TOKEN_FILE", str(home / "gone"))
    else:
        write(home / ".config/servetel/config.toml", '[profiles.default]\nbrand = "smartflo"\ntoken_file = "~/gone"')

    assert made(token="given-token-123")[1] == "given-token-123"
    login = ServetelClient(email="a.person@example.com", password="x")
    assert type(login._transport.tokens).__name__ == "LoginToken"


def test_a_password_file_beside_a_token_may_be_missing(home):
    """The same holds for a login of the profile."""
    text = '[profiles.default]\nbrand = "smartflo"\nemail = "a@example.com"\npassword_file = "~/gone"'
    write(home / ".config/servetel/config.toml", text)

    assert made(token="given-token-123") == (Brand.SMARTFLO.base_url, "given-token-123")
    with pytest.raises(ConfigurationError, match="password file cannot be read"):
        ServetelClient()


@pytest.mark.parametrize("line", ['password = "canary-password"', 'password_file = "~/secret"'])
def test_a_profile_may_hold_a_login(line, home):
    """Its e-mail address and password are used as if they were arguments; they are never printed."""
    write(home / "secret", "canary-password\n")
    text = f'[profiles.default]\nbrand = "smartflo"\nemail = "canary@example.com"\n{line}'
    write(home / ".config/servetel/config.toml", text)

    tokens = ServetelClient()._transport.tokens

    assert {key: str.__str__(value) for key, value in tokens._credentials.items()} == {
        "email": "canary@example.com",
        "password": "canary-password",
    }
    assert "canary" not in repr(vars(tokens))


@pytest.mark.parametrize("given", ["  given-token-123\n", "given-token-123\r\n", "\tBearer given-token-123 "])
def test_blanks_and_the_line_end_of_a_token_go(given, monkeypatch):
    """They were pasted with the token, so they are removed, whatever its source."""
    monkeypatch.setenv("SERVETEL_TOKEN", given)

    assert made()[1] == made(token=given)[1] == "given-token-123"


def test_another_config_file(monkeypatch, home):
    """``SERVETEL_CONFIG`` names another file."""
    monkeypatch.setenv("SERVETEL_CONFIG", str(write(home / "elsewhere.toml", PROFILES)))

    assert made()[1] == "default-profile-token"


@pytest.mark.parametrize(
    ("text", "profile", "hint"),
    [
        ("not = [toml", None, "TOML"),
        ('profiles = "canary"', "other", "profile"),
        ("[profiles]\nother = 5", "other", "profile"),
        (PROFILES, "third", "SERVETEL_PROFILE"),
        ('[profiles.default]\ntoken = "default-profile-token"\nbaseurl = "https://a"', None, "baseurl"),
        ('[profiles.default]\nbrand = "airtel"\ntoken = "default-profile-token"', None, "brand"),
        ("[profiles.default]\ntoken = 5", None, "token"),
        ("\xff\xfe".encode("latin-1").decode("latin-1"), None, "TOML"),
    ],
    ids=[
        "no toml",
        "no table",
        "no profile table",
        "no such profile",
        "unknown key",
        "no such brand",
        "no token",
        "garbage",
    ],
)
def test_a_profile_that_is_wrong_is_refused(text, profile, hint, monkeypatch, home):
    """A bad file is refused with a hint, and not quoted."""
    write(home / ".config/servetel/config.toml", text)
    if profile:
        monkeypatch.setenv("SERVETEL_PROFILE", profile)

    with pytest.raises(ConfigurationError) as caught:
        ServetelClient()
    assert hint in str(caught.value)
    assert_clean(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666], ids=oct)
@pytest.mark.parametrize("which", ["token", "config"])
def test_a_secret_that_others_may_read_is_refused(which, mode, monkeypatch, home):
    """Only its owner may read a file with a secret; the error has the command that mends it."""
    file = write(home / "file", PROFILES if which == "config" else "file-token-1234", mode)
    monkeypatch.setenv("SERVETEL_CONFIG" if which == "config" else "SERVETEL_TOKEN_FILE", str(file))

    with pytest.raises(ConfigurationError, match="other users") as caught:
        ServetelClient()
    assert "chmod 600" in caught.value.fix


def test_a_command_in_an_error_can_be_pasted(monkeypatch, home):
    """The message has the command in the form that a shell takes."""
    monkeypatch.setenv("SERVETEL_TOKEN_FILE", str(write(home / "file", "file-token-1234", 0o644)))

    with pytest.raises(ConfigurationError, match="chmod 600"):
        ServetelClient()


@pytest.mark.parametrize("name", ["SERVETEL_TOKEN_FILE", "SERVETEL_CONFIG"])
def test_a_file_that_is_not_there_is_refused(name, monkeypatch, home):
    """A named file must exist: a typing error must not lead to another account."""
    monkeypatch.setenv(name, str(home / "missing"))

    with pytest.raises(ConfigurationError, match=r"cannot be read|does not exist"):
        ServetelClient()


def test_nothing_is_read_from_the_working_directory(monkeypatch, home):
    """A ``.env`` or configuration file there is ignored."""
    monkeypatch.chdir(home)
    write(home / ".env", "SERVETEL_TOKEN=dotenv-token-1234")
    write(home / "config.toml", PROFILES)

    with pytest.raises(ConfigurationError, match="no token"):
        ServetelClient()
    assert "SERVETEL_TOKEN" not in os.environ


def test_a_home_that_does_not_exist_is_no_error(monkeypatch):
    """Without a home directory there is no profile, and a token argument is enough."""
    monkeypatch.setenv("HOME", "/nonexistent/home")

    assert made(token="given-token-123")[1] == "given-token-123"
