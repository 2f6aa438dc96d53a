"""What every command has: the configuration, and the store that follows from it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longthought.orchestrator.cli.config import Config, load_config
from longthought.orchestrator.cli.failures import reported

if TYPE_CHECKING:
    from longthought.budgets import PriceBook
    from longthought.orchestrator.models import BackendSettings
    from longthought.storage import Store
    from longthought.types import JSONObject

__all__ = ["Settings", "remember", "settings_of"]


@dataclass(frozen=True)
class Settings:
    """Options of the program itself, and what the configuration says."""

    config_file: Path | None = None
    store_url: str | None = None
    data_dir: Path | None = None

    @cached_property
    def config(self) -> Config:
        """The configuration, read when it is first needed."""
        return load_config(self.config_file)

    def location(self) -> tuple[str | None, Path | None]:
        """URL and directory of the store: options, then environment, then the file.

        None for both is the platform's data directory.
        """
        config = self.config  # read in any case: a mistake in it is told at once
        url, folder = self.store_url, self.data_dir
        if url is None and folder is None:
            url = os.environ.get("LONGTHOUGHT_DATABASE_URL") or None
        if folder is None and os.environ.get("LONGTHOUGHT_DATA_DIR"):
            folder = Path(os.environ["LONGTHOUGHT_DATA_DIR"]).expanduser()
        if url is None and folder is None:
            url = config.store_url
        if folder is None:
            folder = config.store_dir
        return url, folder

    def store(self) -> Store:
        """The store, not opened yet.

        Raises:
            ConfigurationError: URL or directory cannot be used.
        """
        from longthought.storage import Store

        url, folder = self.location()
        return Store(url, directory=folder)

    def prices(self) -> PriceBook:
        """The shipped prices and those of the configuration."""
        from longthought.budgets import PriceBook

        return PriceBook.load(self.config.path if self.config.has_prices else None)

    def backend(
        self, model: str, base_url: str | None = None, facts: JSONObject | None = None
    ) -> BackendSettings:
        """The settings of a model's backend, or of a backend itself.

        ``base_url`` goes before the address that is configured, ``facts`` (what the server once
        said) after all that is.

        Raises:
            ConfigurationError: a setting cannot be used.
        """
        from longthought.orchestrator.models import BackendSettings
        from longthought.orchestrator.models.backends import ServerFacts

        fields: dict[str, Any] = self.config.backend_for(model)
        if base_url is not None:
            fields.pop("base_urls", None)
            fields["base_url"] = base_url
        return BackendSettings(**fields).informed(ServerFacts.from_json(facts))

    def backends(
        self, model: str, base_url: str | None = None, facts: JSONObject | None = None
    ) -> dict[str, BackendSettings]:
        """Settings by name: of every backend there is, and those of this model."""
        from longthought.orchestrator.models.registry import BUILT_IN

        found = {name: self.backend(name) for name in self.config.backends}
        backend = model.partition("/")[0].partition(":")[0]
        if backend in BUILT_IN or backend in found or model in found:
            found[model] = self.backend(model, base_url, facts)
        return found


def settings_of(context: typer.Context) -> Settings:
    """The settings that :func:`remember` left for the command."""
    found = context.obj
    return found if isinstance(found, Settings) else Settings()


def _version(wanted: bool) -> None:
    if wanted:
        from longthought import __version__

        typer.echo(f"longthought {__version__}")
        raise typer.Exit


@reported
def remember(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="Configuration file (TOML).", metavar="FILE")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="Database: postgresql://... or sqlite:///FILE.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Data directory, for the store and its signing key.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Keep the program's own options for its command."""
    del version
    context.obj = Settings(config, store, data_dir)
