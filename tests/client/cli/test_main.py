"""The command line itself: help, version, unknown options, completion."""

from tests.support import run


def test_help_and_version() -> None:
    for program, commands in (
        ("gomin-client", ["analyze", "synthesize", "reconstruct", "convert", "compare", "info"]),
        ("gomin-export", ["gan", "diffusion", "verify"]),
    ):
        result = run(program, "--help")
        assert result.returncode == 0
        for command in commands:
            assert command in result.stdout
            assert "Example" in run(program, command, "--help").stdout
    assert run("gomin-client", "--version").stdout.startswith("gomin-triton ")


def test_an_unknown_option_is_an_error() -> None:
    result = run("gomin-client", "reconstruct", "a.wav", "--sped", "3")

    assert result.returncode == 2
    assert "--sped" in result.stderr


def test_the_shell_completes_commands() -> None:
    env = {"_GOMIN_CLIENT_COMPLETE": "complete_bash", "COMP_WORDS": "gomin-client rec", "COMP_CWORD": "1", "PATH": ""}

    assert run("gomin-client", env=env).stdout.split() == ["reconstruct"]
