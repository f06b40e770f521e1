"""Minimal filtering equals filtering, and blocks on phases equal the blocks that they are made of."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from gomin_client.errors import UsageError
from gomin_export.lowering import LoweredGAN, polyphase
from gomin_export.lowering.film import ComposedModulation, FrameEdges, composition_pays
from gomin_export.lowering.polyphase import (
    PHASES,
    PhasedResBlock,
    PhasedSnake,
    WinogradConv,
    from_phases,
    phases_pay,
    to_phases,
)
from gomin_export.lowering.winograd import UNIT, WinogradFilter
from gomin_export.networks import GomiGAN
from gomin_export.networks.gan import ResBlock, Snake
from gomin_export.onnx import export as onnx_export
from gomin_export.onnx.forms import GraphOptions, gan_form
from gomin_export.plan import ExportOptions
from gomin_export.repository.config import Deployment
from tests.support import assert_fails, run

TOLERANCE = 1e-12
CHANNELS = 6
LENGTHS = [PHASES, 2 * PHASES, 3 * PHASES, 10 * PHASES, 25 * PHASES]


def close(actual: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(actual.numpy(), expected.numpy(), rtol=0, atol=tolerance)


def signal(length: int, channels: int = CHANNELS) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return 3 * torch.randn(2, channels, length, dtype=torch.float64, generator=generator)


def block(kernel: int, dilations: tuple[int, ...] = (1, 3, 5), channels: int = CHANNELS) -> ResBlock:
    """One with α of either sign, among them 0, and a low-pass filter that is not symmetric."""
    torch.manual_seed(kernel)
    made = ResBlock(channels, kernel, dilations, filter_rate=12000.0).double().eval()
    made.lpf *= torch.rand(12, dtype=torch.float64) + 0.5
    for module in made.modules():
        if isinstance(module, Snake):
            module.alpha.data = 2 * torch.randn(channels, 1, dtype=torch.float64)
            module.alpha.data[0] = 0
    return made


def network(channels: int = 384) -> GomiGAN:
    """A GAN with stages of enough channels for phases to pay."""
    torch.manual_seed(0)
    return GomiGAN(8, channels, (4, 2), (3, 7), ((1, 3, 5), (1, 3)), hop_length=8, win_length=32).eval()


class TestWinogradFilter:
    @pytest.mark.parametrize(("outputs", "taps"), [(1, 3), (2, 3), (4, 1), (4, 3), (4, 4), (6, 5), (3, 8)])
    def test_is_the_filter(self, outputs: int, taps: int) -> None:
        winograd = WinogradFilter.of(outputs, taps)
        torch.manual_seed(taps)
        x, g = torch.randn(outputs + taps - 1).double(), torch.randn(taps).double()

        y = winograd.synthesis @ ((winograd.taps @ g) * (winograd.analysis @ x))

        close(y, torch.stack([g @ x[i : i + taps] for i in range(outputs)]), 1e-11)

    def test_the_unit_point_is_a_part_of_every_output(self) -> None:
        assert (WinogradFilter.of(4, 4).synthesis[:, UNIT] == 1).all()

    def test_what_runs_has_nothing_to_round(self) -> None:
        winograd = WinogradFilter.of(4, 4)

        assert ((64 * winograd.analysis) % 1 == 0).all()
        assert ((64 * winograd.synthesis) % 1 == 0).all()

    @pytest.mark.parametrize(("outputs", "taps"), [(1, 1), (12, 12)])
    def test_refuses_what_it_has_no_points_for(self, outputs: int, taps: int) -> None:
        with pytest.raises(ValueError, match="points"):
            WinogradFilter.of(outputs, taps)


@pytest.mark.parametrize("length", LENGTHS)
def test_to_phases_and_back(length: int) -> None:
    assert torch.equal(from_phases(to_phases(signal(length))), signal(length))


@pytest.mark.parametrize("dilation", [1, 3, 5, 7])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 9, 11])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_convolution_on_phases(length: int, kernel: int, dilation: int) -> None:
    torch.manual_seed(kernel)
    conv = nn.Conv1d(CHANNELS, 5, kernel, dilation=dilation, padding=dilation * (kernel // 2)).double()

    close(from_phases(WinogradConv(conv)(to_phases(signal(length)))), conv(signal(length)), 1e-11)


@pytest.mark.parametrize("length", LENGTHS)
def test_an_activation_on_phases(length: int) -> None:
    original = block(3)
    snake = original.snakes1[0]
    alpha = torch.where(snake.alpha == 0, 1e-15, snake.alpha)

    actual = from_phases(PhasedSnake(original.lpf[0, 0], alpha[:, 0])(to_phases(signal(length))))

    close(actual / alpha, original.anti_aliased(snake, signal(length)))


@pytest.mark.parametrize("kernel", [3, 7, 11])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_block_on_phases(length: int, kernel: int) -> None:
    original = block(kernel)

    close(from_phases(PhasedResBlock(original)(to_phases(signal(length)))), original(signal(length)), 1e-11)


@pytest.mark.parametrize("frames", [1, 2, 5, 13])
def test_a_network_on_phases(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some stages with all blocks on phases, some with a part of them, some with none."""
    original = network().double()
    asked = iter([True, False, True, True])
    monkeypatch.setattr("gomin_export.lowering.gan.phases_pay", lambda *_: next(asked))
    lowered = LoweredGAN(original, winograd=True)

    assert [isinstance(made, PhasedResBlock) for made in lowered.resblocks] == [True, False, True, True]
    mel = 1.2 * torch.rand(2, 8, frames, dtype=torch.float64)
    close(lowered(mel), original(mel))


def test_float32_loses_a_digit_at_most() -> None:
    """Outputs of unit variance, the most channels of the released network."""
    torch.manual_seed(0)
    conv = nn.Conv1d(768, 768, 11, padding=5)
    conv.weight.data = torch.randn(768, 768, 11) / (768 * 11) ** 0.5
    x = torch.randn(1, 768, 40)

    exact = copy.deepcopy(conv).double()(x.double())
    error = (from_phases(WinogradConv(conv)(to_phases(x))) - exact).abs().max()

    assert error < 1.5e-5
    assert error < 20 * (conv(x) - exact).abs().max()


class TestModulation:
    @staticmethod
    def chain(strides: tuple[int, ...]) -> list[nn.ConvTranspose1d]:
        torch.manual_seed(0)
        sizes = (8, 12, 10, 6)
        return [
            nn.ConvTranspose1d(before, after, 2 * stride, stride, padding=stride // 2).double()
            for before, after, stride in zip(sizes, sizes[1:], strides, strict=False)
        ]

    @pytest.mark.parametrize("frames", [1, 2, 3, 4, 9])
    @pytest.mark.parametrize("strides", [(2, 2), (4, 4), (6, 2), (4, 4, 2), (2, 2, 2), (8, 8, 4)])
    def test_is_the_chain(self, strides: tuple[int, ...], frames: int) -> None:
        chain = self.chain(strides)
        mel = torch.randn(2, 8, frames, dtype=torch.float64)
        expected = mel
        for conv in chain:
            expected = conv(expected)

        actual = ComposedModulation(chain).double()(mel, *FrameEdges(torch.float64)(mel))

        close(actual, expected)

    def test_of_weights_that_are_all_zero(self) -> None:
        chain = self.chain((4, 2))
        for conv in chain:
            conv.weight.data.zero_()
        mel = torch.randn(1, 8, 3, dtype=torch.float64)

        actual = ComposedModulation(chain).double()(mel, *FrameEdges(torch.float64)(mel))

        close(actual, chain[1](chain[0](mel)))

    def test_of_the_released_network_the_second_and_third(self) -> None:
        sizes = (128, 1536, 768, 384, 192, 96)
        convs = [nn.ConvTranspose1d(before, after, 2) for before, after in pairwise(sizes)]

        assert [composition_pays(conv, 128) for conv in convs] == [False, True, True, False, False]

    def test_in_a_network(self) -> None:
        lowered = LoweredGAN(network(), winograd=True)

        composed = [isinstance(conv, ComposedModulation) for conv in lowered.film_generator.convs]
        assert composed == [False, True]


class TestChoice:
    def test_long_kernels_of_many_channels(self) -> None:
        released = [
            (768, 3),
            (768, 7),
            (768, 11),
            (384, 3),
            (384, 7),
            (384, 11),
            (192, 7),
            (192, 11),
            (96, 7),
            (96, 11),
        ]
        chosen = [
            (channels, kernel)
            for channels in (768, 384, 192, 96, 48, 24)
            for kernel in (3, 7, 11)
            if phases_pay(block(kernel, channels=channels), 16)
        ]
        assert chosen == released

    def test_not_where_lengths_are_not_multiples(self) -> None:
        assert not phases_pay(block(11, channels=384), 6)

    def test_not_with_even_dilations(self) -> None:
        assert not phases_pay(block(11, (1, 2), channels=384), 16)

    def test_not_where_channels_have_filters_of_their_own(self) -> None:
        original = block(11, channels=384)
        original.lpf[3] *= 1.01

        assert not phases_pay(original, 16)

    def test_the_cost_is_that_of_the_layer_that_is_made(self) -> None:
        """Multiplications and gathered values are counted from the modules' own weights."""
        for kernel, dilation in ((3, 1), (7, 3), (11, 5)):
            conv = nn.Conv1d(8, 8, kernel, dilation=dilation)
            made = WinogradConv(conv)
            gathered = sum(rows.weight[0].numel() for rows in (made.analysis, made.synthesis))
            rows = sum(rows.weight.shape[0] for rows in (made.analysis, made.synthesis)) + 2 * made.points  # in blocks
            products = made.weight.numel() / 8
            cost = products + polyphase._GATHERED * gathered + polyphase._WRITTEN * rows
            assert polyphase._cost(conv) == pytest.approx(cost)


class TestTarget:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"graph": GraphOptions(precision="fp16", target="cpu")},
            {"graph": GraphOptions(lowering=False, target="cpu")},
            {"graph": GraphOptions(target="tpu")},
            {"graph": GraphOptions(target="cpu"), "deployment": Deployment(instance_kind="gpu")},
            {"graph": GraphOptions(target="cpu"), "deployment": Deployment(accelerator="tensorrt")},
        ],
    )
    def test_refuses_what_it_cannot_be_had_with(self, wrong: dict[str, object]) -> None:
        with pytest.raises(UsageError, match="--target"):
            ExportOptions(**wrong)  # type: ignore[arg-type]

    def test_takes_what_is_for_cpus(self) -> None:
        ExportOptions(graph=GraphOptions(target="cpu"), deployment=Deployment(accelerator="openvino"))

    def test_as_an_option(self, tmp_path: Path) -> None:
        checkpoint = tmp_path / "gan.pt"
        torch.save(network(192).state_dict(), checkpoint)
        arguments = ["gan", "--ckpt", checkpoint, "--repository", tmp_path / "models", "--target", "cpu"]

        assert_fails(run("gomin-export", *arguments, "--precision", "fp16"), 2, "--target cpu", "fp16")
        exported = run("gomin-export", *arguments)

        assert exported.returncode == 0, exported.stderr
        model = onnx.load(tmp_path / "models/gomin_gan/1/model.onnx")
        assert any("convs1.0/analysis/Conv" in node.name for node in model.graph.node)
        again = run("gomin-export", *arguments)
        assert "same recipe" in again.stderr
        other = run("gomin-export", *arguments[:-2], "--dry-run")
        assert "gomin_gan/2" in other.stdout, other.stderr  # another graph

    def test_is_for_gans_alone(self) -> None:
        assert run("gomin-export", "diffusion", "--ckpt", "a.pt", "--target", "cpu").returncode == 2


@pytest.fixture(scope="module")
def graph_for_cpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cpu") / "model.onnx"
    onnx_export.write(gan_form(network(), GraphOptions(target="cpu")), path, {})
    return path


def test_the_graph_knows_its_shapes(graph_for_cpus: Path) -> None:
    """Reshapes are told what they make; ONNX's own inference can then follow every value."""
    model = onnx.load(graph_for_cpus)
    operators = {node.op_type for node in model.graph.node}

    constants = {tensor.name for tensor in model.graph.initializer}
    reshapes = [node for node in model.graph.node if node.op_type == "Reshape"]
    assert reshapes
    assert all(node.input[1] in constants for node in reshapes)
    assert not operators & {"Pad", "Gather"}
    assert not model.graph.value_info
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    assert all(value.type.tensor_type.HasField("shape") for value in inferred.graph.value_info)
    assert {name for node in model.graph.node for name in node.output} <= {
        value.name for value in (*inferred.graph.value_info, *inferred.graph.output)
    }


@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (3, 2), (1, 50)])
def test_the_graph_takes_any_batch_and_length(graph_for_cpus: Path, batch: int, frames: int) -> None:
    session = onnxruntime.InferenceSession(graph_for_cpus, providers=["CPUExecutionProvider"])
    mel = torch.rand(batch, 8, frames)

    (audio,) = session.run(None, {"mel": mel.numpy()})

    close(torch.from_numpy(audio), network()(mel), 1e-6)


def test_modulations_are_made_stage_by_stage(graph_for_cpus: Path, tmp_path: Path) -> None:
    """Otherwise those of all stages are held until they are used, in other lengths than the signal's by then."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(graph_for_cpus, options, providers=["CPUExecutionProvider"])
    session.run(None, {"mel": np.zeros((1, 8, 4), np.float32)})
    profile = Path(session.end_profiling()).read_text()

    ran = [part.partition('"')[0].replace("_nchwc", "") for part in profile.split('"name" :"')[1:]]
    made = ran.index("film_generator.convs.1/body/Conv_kernel_time")
    assert max(ran.index(f"resblocks.{i}/convs2.0/Conv_kernel_time") for i in (0, 1)) < made
