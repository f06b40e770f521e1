"""Ends with status 1 if a model of this server is dead: for a container without gomin-server, such as NVIDIA's.

After the death of a helper process, Triton answers every request to its model with an error and still reports server
and model as ready. So this asks each ready model for the least it can compute. Only Triton's own words about the dead
process count: a full queue, a timeout under load and every other error leave the server alive. Python 3.8 or newer,
nothing else.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request

ADDRESS = os.environ.get("TRITON_HTTP", "http://127.0.0.1:8000")
TIMEOUT_S = 5.0  # for each request
DEAD = "Stub process"  # "Stub process 'gomin_diffusion_0_0' is not healthy."
ZERO = {"BOOL": False, "BYTES": ""}


def main() -> int:
    """The exit status."""
    try:
        index = json.loads(ask("/v2/repository/index", {"ready": True}))
    except OSError as error:
        print(f"{ADDRESS} does not answer: {error}", file=sys.stderr)
        return 1
    for model in index:
        path = f"/v2/models/{model['name']}/versions/{model['version']}"
        try:
            ask(f"{path}/infer", smallest(json.loads(ask(path))))
        except urllib.error.HTTPError as error:
            message = error.read().decode(errors="replace")
            if DEAD in message:
                print(f"model {model['name']}, version {model['version']}: {message}", file=sys.stderr)
                return 1
        except OSError:  # it takes long: there is work
            continue
    return 0


def smallest(metadata: dict) -> dict:
    """A request of zeros, one along every free axis, to a model; a diffusion model makes one step."""
    inputs = []
    for tensor in metadata["inputs"]:
        shape = [abs(size) for size in tensor["shape"]]
        count = 1
        for size in shape:
            count *= size
        value = ZERO.get(tensor["datatype"], 0)
        inputs.append({"name": tensor["name"], "datatype": tensor["datatype"], "shape": shape, "data": [value] * count})
    return {"inputs": inputs, "parameters": {"sampler": "ddim", "steps": 1}}


def ask(path: str, body: dict | None = None) -> bytes:
    """The body of an answer; a request with a body is a POST."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(ADDRESS + path, data), timeout=TIMEOUT_S) as answer:
        return answer.read()


if __name__ == "__main__":
    sys.exit(main())
