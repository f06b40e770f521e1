"""Reading and replacing tritonserver's options."""

from gomin_server.arguments import all_values, values, without

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


def test_all_values_of_an_option_that_is_given_several_times() -> None:
    assert all_values(ARGUMENTS, "--grpc-address") == ["a", "b"]
    assert all_values(ARGUMENTS, "--metrics-address") == []
