"""A transport around another one."""

from __future__ import annotations

import numpy as np

from gomin_client.contract.model import ModelContract
from gomin_client.mel.features import MelConfig
from gomin_client.transports.base import ServerInfo, Transport
from gomin_client.transports.mock import Call, MockModel, MockTransport
from gomin_client.transports.statistics import Statistics
from gomin_client.transports.wrapper import TransportWrapper


class Inner(MockTransport):
    """A transport that differs from the protocol's defaults in everything."""

    @property
    def can_stream(self) -> bool:
        return True

    def server(self) -> ServerInfo:
        return ServerInfo("triton", "2.51.0")

    def statistics(self, model: str, version: int) -> Statistics:
        return Statistics(version, 2, 3, 4, 5, 6, len(model))


def test_every_call_is_passed_on() -> None:
    parameters = ModelContract("gan", MelConfig(), 32).to_parameters()
    inner = Inner({"m": MockModel(lambda call: {"audio": 2 * call.inputs["mel"]}, parameters)}, servers=3)
    wrapper = TransportWrapper(inner)
    mel = np.ones((1, 128, 3), np.float32)

    assert (wrapper.url, wrapper.servers, wrapper.server()) == ("mock:", 3, inner.server())
    assert wrapper.can_stream
    assert wrapper.models() == ["m"]
    assert wrapper.describe("m") == inner.describe("m")
    np.testing.assert_array_equal(wrapper.infer("m", 1, {"mel": mel}, 5.0, {"steps": 6})["audio"], 2 * mel)
    assert inner.calls == [Call("m", 1, {"mel": mel}, 5.0, {"steps": 6})]
    assert wrapper.statistics("m", 7) == inner.statistics("m", 7)
    wrapper.close()
    assert inner.closed


def test_no_part_of_the_protocol_is_left_to_its_default() -> None:
    assert {name for name in vars(Transport) if not name.startswith("_")} <= set(vars(TransportWrapper))
