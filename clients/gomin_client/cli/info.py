"""`gomin-client info`: the models of a server or repository, for people and as JSON."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gomin_client import DEFAULT_URL
from gomin_client.cli.console import echo, to_json
from gomin_client.cli.model_options import ConnectionOptions, Url
from gomin_client.cli.records import with_records
from gomin_client.errors import ServerError, UsageError

if TYPE_CHECKING:
    from gomin_client.transports.connection import Connection

_FEW = 8  # values that an example request spells out


@with_records
def info(
    *,
    url: Url = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: docs/client.md describes the fields.")] = False,
    connection: ConnectionOptions,
) -> None:
    """Describe the models of a server or repository: tensors, settings, limits, versions, and an example request.

    Examples:

    gomin-client info

    gomin-client info --url http://server:8000 --json
    """
    from gomin_client.tools.description import describe
    from gomin_client.transports.registry import connect

    settings = connection.build()
    transport = connect(url or DEFAULT_URL, settings)
    try:
        found = describe(transport)
    finally:
        transport.close()
    if not found["models"]:
        raise ServerError(f"{found['url']} has no models; run gomin-export first")
    for model in found["models"]:
        if model["problem"] is None and model["example"] is not None:
            model["example"]["curl"] = _curl(found["url"], model["example"], settings)
            model["example"]["command"] = _command(found["url"], model, settings)
    if as_json:
        typer.echo(to_json(found))
        return
    server = found["server"]
    echo(found["url"] + (f" ({server['name']} {server['version']})" if server else ""))
    for model in found["models"]:
        echo("")
        for line in _lines(model, in_process=found["url"].startswith("local:")):
            echo(line)


def _lines(model: dict[str, Any], *, in_process: bool) -> Iterator[str]:
    """A model, for people."""
    if model["problem"] is not None:
        yield model["name"]
        yield f"  {model['problem']}"
        return
    yield f"{model['name']}: {model['summary']}"
    yield f"  kind: {model['kind']}"
    for way in ("input", "output"):
        for tensor in model[f"{way}s"]:
            axes = (axis if size < 0 else str(size) for axis, size in zip(tensor["axes"], tensor["shape"], strict=True))
            optional = ", optional" if tensor["optional"] else ""
            yield f"  {way} {tensor['name']}: {tensor['datatype']} ({', '.join(axes)}){optional}"
            yield f"    {tensor['meaning']}"
            yield f"    unit: {tensor['unit']}"
    yield from _settings(model)
    for version in model["versions"]:
        yield f"  version {version['version']}:"
        if version["precision"] is None:
            yield "    its config.pbtxt does not say where it comes from"
            continue
        if version["checkpoint_sha256"]:
            yield f"    checkpoint: sha256 {version['checkpoint_sha256']}"
        if version["source"]:
            yield f"    source: {version['source']}"
        yield f"    precision: {version['precision']}"
        if version["operators"]:
            digest = version["operators_sha256"]
            library = f"library sha256 {digest}" if digest else "its config.pbtxt does not say with which library"
            yield f"    operators: {version['operators']}; {library}"
            if in_process and (problem := _library_problem(version["operators"])):
                yield f"    {problem}"
        yield f"    parity: {version['parity']}"
    example = model["example"]
    if example is None:
        yield "  example: none; it sends several answers, over a gRPC stream only"
        return
    yield f"  example: {example['curl'] or example['command'] or 'a request over HTTP, in the output of --json'}"


def _library_problem(operators: str) -> str:
    """Why this installation cannot run a version that needs these operators, or ""."""
    from gomin_client.native.library import require_library

    try:
        require_library(operators, "it")
    except UsageError as error:
        return str(error)
    return ""


def _settings(model: dict[str, Any]) -> Iterator[str]:
    mel, rate, hop = model["mel"], model["sample_rate"], model["hop_length"]
    yield f"  sample rate: {rate} Hz; hop: {hop} samples ({1000 * hop / rate:.1f} ms)"
    yield (
        f"  mel spectrograms: {mel['n_mels']} bands, {mel['f_min']:g} to {mel['f_max']:g} Hz; window "
        f"{mel['win_length']}, FFT {mel['n_fft']} samples"
    )
    steps = model["num_diffusion_steps"]
    halo = model["halo_frames"]
    yield f"  halo{'' if steps is None else ' of one denoiser step'}: {_frames(halo)}"
    reach = model["reach_frames"]
    if reach is None:
        yield "  reach: not known; it takes whole recordings only"
    else:
        chain = "" if model["sampling"] is None else " (default chain)"
        yield f"  reach{chain}: {_frames(reach)}, which a window of a longer recording needs to either side"
    if steps is not None:
        yield f"  trained with {steps} timesteps"
    if model["sampling"] is not None:
        default = model["sampling"]["default"]
        chosen = [f"{name} {value}" for name, value in (default or {}).items() if value is not None]
        yield f"  default chain: {', '.join(chosen) or 'that of the diffusion model that it calls'}"
        yield f"  samplers: {', '.join(sampler['name'] for sampler in model['sampling']['samplers'])}"
        yield f"  schedules: {', '.join(model['sampling']['schedules'])}"
    limits = [f"{model['limits']['max_batch_size']} items in a batch"] if model["limits"]["max_batch_size"] else []
    if (frames := model["limits"]["max_frames"]) is not None:
        limits.append(f"{frames} frames in one request, of all its items together ({frames * hop / rate:.1f} s)")
    if limits:
        yield f"  limits: {'; '.join(limits)}"


def _frames(number: int) -> str:
    return f"{number} {'frame' if number == 1 else 'frames'}"


def _curl(url: str, example: dict[str, Any], settings: Connection) -> str | None:
    """The example as a command for curl; None if the server is not reached over HTTP.

    Headers may be secret: their values are left out.
    """
    if not url.startswith(("http://", "https://")):
        return None
    given = [("--cacert", settings.ca), ("--cert", settings.certificate), ("--key", settings.key)]
    words = [f"{option} {shlex.quote(str(value))}" for option, value in given if value is not None]
    for name, value in {**example["headers"], **dict.fromkeys(settings.headers, "...")}.items():
        words.append(f"-H {shlex.quote(f'{name}: {value}')}")
    inputs = []
    for tensor in example["body"]["inputs"]:
        count, values = len(tensor["data"]), json.dumps(tensor["data"], separators=(",", ":"))
        if count > _FEW:  # the values are all the same
            values = f"['$(yes {tensor['data'][0]} | head -n {count} | paste -sd, -)']"
        head = json.dumps({name: tensor[name] for name in ("name", "datatype", "shape")}, separators=(",", ":"))
        inputs.append(f'{head[:-1]},"data":{values}}}')
    return f"curl -sS {shlex.quote(url + example['path'])} {' '.join(words)} -d '{{\"inputs\":[{','.join(inputs)}]}}'"


def _command(url: str, model: dict[str, Any], settings: Connection) -> str | None:
    """A command of this program that uses the model; None if none does."""
    from gomin_client.contract.model import DIFFUSION, SHORT_NAMES, VOCODER_KINDS

    if model["kind"] not in VOCODER_KINDS:
        return None
    short = {name: short for short, name in SHORT_NAMES.items()}
    words = ["gomin-client", "reconstruct", "a.wav", "--model", short.get(model["name"], model["name"])]
    if model["kind"] == DIFFUSION:
        words += ["--seed", "7"]
    words += [word for one in url.split(",") for word in ("--url", one.strip())]
    for option, value in (("--ssl-ca", settings.ca), ("--ssl-cert", settings.certificate), ("--ssl-key", settings.key)):
        words += [] if value is None else [option, str(value)]
    words += ["--ssl"] if settings.tls else []
    words += [word for name in settings.headers for word in ("--header", f"{name}: ...")]
    return shlex.join(words)
