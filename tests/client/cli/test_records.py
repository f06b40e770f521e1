"""Records of options: what a command with records takes, and what it is called with."""

from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
import typer

from gomin_client.cli.records import with_records
from tests.support import invoke


@dataclass(frozen=True)
class Inner:
    retries: Annotated[int, typer.Option("--retries", "-r", min=0, help="Number of retries.")] = 3


@dataclass(frozen=True)
class Outer:
    name: Annotated[str, typer.Option(envvar="TOY_NAME", help="A name.")] = "nobody"
    inner: Inner = field(default_factory=Inner)
    files: Annotated[list[str] | None, typer.Argument(help="Files.")] = None


class TestWithRecords:
    @pytest.fixture
    def calls(self) -> list[dict[str, Any]]:
        return []

    @pytest.fixture
    def app(self, calls: list[dict[str, Any]]) -> typer.Typer:
        app = typer.Typer(name="toy")

        @app.command()
        @with_records
        def command(*, first: Outer, fast: Annotated[bool, typer.Option("--fast")] = False) -> None:
            """Do nothing."""
            calls.append({"first": first, "fast": fast})

        return app

    def test_defaults(self, app: typer.Typer, calls: list[dict[str, Any]]) -> None:
        assert invoke(app).returncode == 0
        assert calls == [{"first": Outer(), "fast": False}]

    def test_every_field_is_an_option(self, app: typer.Typer, calls: list[dict[str, Any]]) -> None:
        assert invoke(app, "a", "b", "-r", "5", "--fast", env={"TOY_NAME": "me"}).returncode == 0
        assert calls == [{"first": Outer("me", Inner(5), ["a", "b"]), "fast": True}]

    def test_the_help_and_the_checks_are_those_of_the_fields(self, app: typer.Typer) -> None:
        shown = invoke(app, "--help").stdout
        assert "Do nothing." in shown
        for words in ("--name", "TOY_NAME", "--retries", "-r", "Number of retries.", "--fast"):
            assert words in shown
        refused = invoke(app, "--retries", "-1")
        assert refused.returncode == 2
        assert "--retries" in refused.stderr
