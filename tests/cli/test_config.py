"""The configuration file: where it is found, what it sets, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from longthought.errors import ConfigurationError
from longthought.orchestrator.cli.config import load_config
from longthought.orchestrator.cli.settings import Settings
from tests.cli.conftest import PUZZLE, Cli

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def written(text: str) -> Path:
    path = Path.cwd() / "longthought.toml"
    path.write_text(text)
    return path


def test_the_page_shows_a_file_that_works(cli: Cli) -> None:
    written(PAGE.read_text().partition("```toml\n")[2].partition("```")[0])
    settings = Settings()
    backend = settings.backend("openai/my-model")
    assert (backend.slots, backend.api_key_env, backend.headers["x-team"]) == (8, "MY_KEY", "blue")
    assert settings.prices().price("openai/my-model") is not None
    assert settings.config.store_dir == Path.cwd() / "runs"


def test_options_go_before_the_environment_and_that_before_the_file(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    written('[store]\nurl = "sqlite:///file.db"\n')
    assert Settings().location() == (None, cli.directory)
    monkeypatch.delenv("LONGTHOUGHT_DATA_DIR")
    assert Settings().location() == ("sqlite:///file.db", None)
    monkeypatch.setenv("LONGTHOUGHT_DATABASE_URL", "sqlite:///env.db")
    assert Settings().location()[0] == "sqlite:///env.db"
    assert Settings(store_url="sqlite:///mine.db").location()[0] == "sqlite:///mine.db"
    assert Settings(data_dir=Path("here")).location() == (None, Path("here"))


def test_defaults_of_solve_are_used(cli: Cli) -> None:
    written('[defaults]\nstrategy = "single"\n[defaults.budget]\nmodel_calls = 3\n')
    cli("solve", PUZZLE, "--id", "it")
    assert cli.json("runs")[0]["workflow"] == "solve-single"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('modle = "x"', "modle: is no key of the configuration. Known are backends"),
        ("[store]\nurI = 'x'", "store.urI: is no key of the configuration. Did you mean 'url'?"),
        ("[defaults.budget]\ntoken = 1", "defaults.budget.token: is no key"),
        ("[defaults]\nn = 'x'", "defaults.n: 'x' cannot be used. Write a whole number"),
        ("[backends.openai]\napi_key = 'x'", "Did you mean 'api_key_env'?"),
        ("[backends.openai]\nslots = true", "slots: True cannot be used"),
        ("[backends]\nopenai = 1", "is no table"),
        ("[store", "is no TOML"),
    ],
)
def test_a_mistake_is_named_with_the_nearest_key(cli: Cli, text: str, said: str) -> None:
    path = written(text)
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    assert str(path.name) in str(caught.value)
    assert said in str(caught.value)
    assert cli("runs").exit_code == 2


def test_a_named_file_has_to_be_there(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    result = cli("--config", "nowhere.toml", "runs")
    assert (result.exit_code, "nowhere.toml: cannot be read" in result.stderr) == (2, True)
    monkeypatch.setenv("LONGTHOUGHT_CONFIG", "elsewhere.toml")
    assert cli("runs").exit_code == 2


def test_doctor_says_which_file_is_used(cli: Cli) -> None:
    path = written("[store]\n")
    found = {check["name"]: check for check in cli.json("doctor")["checks"]}
    assert found["configuration"]["found"] == str(path)
