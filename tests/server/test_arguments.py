"""Reading and replacing tritonserver's options."""

from gomin_server.arguments import values, without

ARGUMENTS = ["--http-port", "1", "--grpc-address=a", "--log-info=true", "--grpc-address", "b", "--exit-on-error"]


def test_the_last_value_of_an_option_counts() -> None:
    assert values(ARGUMENTS) == {
        "--http-port": "1",
        "--grpc-address": "b",
        "--log-info": "true",
        "--exit-on-error": "",
    }


def test_options_are_removed_in_both_forms() -> None:
    assert without(ARGUMENTS, ["--grpc-address"]) == ["--http-port", "1", "--log-info=true", "--exit-on-error"]
    assert without(ARGUMENTS, ["--exit-on-error", "--http-port"]) == ARGUMENTS[2:-1]
