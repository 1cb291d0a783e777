"""`config`: whether the settings are fit to run, and which are in force."""

from __future__ import annotations

import typer

from rebrain_node.cli.options import AsJson, Config
from rebrain_node.cli.present import print_json, print_table

config = typer.Typer(help="Check and show the settings.", no_args_is_help=True)


@config.command("check")
def check(config: Config = None, as_json: AsJson = False) -> None:
    """Say whether settings, limits and keys are fit to run.

    The exit code is 2 if not.
    """
    from rebrain_node.app.compose import read_limits
    from rebrain_node.settings import load_settings
    from rebrain_node.trust import trusted_keys

    settings = load_settings(config)
    trusted_keys(settings)
    digest = read_limits(settings).digest
    if as_json:
        print_json({"fit": True, "limits_digest": digest})
        return
    typer.echo(f"settings and limits are fit to run; limits digest {digest}")


@config.command("show")
def show(config: Config = None, as_json: AsJson = False) -> None:
    """Print the settings in force.

    File, environment and defaults together.
    """
    from rebrain_node.settings import load_settings

    values = load_settings(config).model_dump(mode="json")
    values["storage"]["database_url"] = _without_password(values["storage"]["database_url"])
    if as_json:
        print_json(values)
        return
    print_table("Settings in force", ("setting", "value"), list(_flat(values)))


def _flat(values: dict[str, object], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, value))
    return rows


def _without_password(url: str | None) -> str | None:
    if url is None:
        return None
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if parts.password is None:
        return url
    return url.replace(f":{parts.password}@", ":***@", 1)
