"""What both packages of samplers are called with: one grid, so that Node starts once."""

from __future__ import annotations

import itertools
from typing import Any

SCHEDULE_STEPS = (1, 2, 7, 50, 200, 1000)
SPACINGS = ("trailing", "leading", "linspace", "random")
MEL = [(0.37 * frame) % 1 - 0.5 for frame in range(40)]  # one band
LAST = 2**64 - 1

Case = dict[str, Any]


def chain(given: Case, **changes: Any) -> Case:
    """A chain of 40 frames in tiles of 12."""
    usual = {"usual": {}, "numSteps": 50, "mel": MEL, "hop": 16, "most": 12, "seed": "7", "first": 0}
    return {"given": given, **usual, **changes}


CASES: dict[str, list[Case]] = {
    "registry": [{}],
    "words": [
        {"seed": str(seed), "block": str(block), "draw": draw, "blocks": 500}
        for seed, block, draw in [
            (0, 0, 0),
            (1, 5, 1),
            (LAST, 2**60 - 501, 2**32 - 1),
            (2**63 + 5, 2**32 - 250, 49),  # the counter's lower half overflows
            (0x9E3779B97F4A7C15, 2**53 + 1, 1000),
        ]
    ],
    "noise": [
        {"seed": str(seed), "length": length, "first": str(first), "draw": draw}
        for seed, length, first, draw in [
            (7, 400_000, 0, 0),
            (LAST, 100_000, 10**12 + 3, 48),
            (2**53 + 1, 6, 2**62 - 1, 1),
            (3, 1, 2, 0),
            (3, 16_385, 3, 0),  # more blocks than are made at once
            (3, 0, 5, 0),
            (2**64, 1, 0, 0),
            (-1, 1, 0, 0),
            (0, 1, 2**62, 0),
            (0, 1, -1, 0),
        ]
    ],
    "schedule": [
        {"name": name, "steps": steps}
        for name, steps in [
            *itertools.product(("linear", "cosine", "interpolated"), SCHEDULE_STEPS),
            ("linear", 0),
            ("sigmoid", 5),
            ("fromBetas", 5),
            ("toString", 5),
        ]
    ],
    "betas": [
        {"betas": betas}
        for betas in ([0.1, 0.2, 1e-7, 0.99999], [], [0.1, 0], [1.0], [0.5, "nan"], [0.1, -1.25e-7], [1234567.5])
    ],
    "timesteps": [
        {"sampler": sampler, "schedule": ["cosine", total], "steps": steps, "spacing": spacing}
        for sampler, spacing, (total, counts) in itertools.product(
            ("ddim", "dpm++", "dpm++sde", "unipc"),
            SPACINGS,
            {1: (1,), 8: range(10), 50: range(1, 51), 1000: (6, 7, 17, 30, 93, 301, 499, 999)}.items(),
        )
        for steps in counts
    ],
    "settings": [
        {"given": given, "usual": usual, "steps": steps}
        for given, usual, steps in [
            ({}, {}, 50),
            ({}, {"sampler": "dpm++", "steps": 9, "schedule": "cosine"}, 50),
            ({"sampler": "ddim"}, {"sampler": "dpm++", "steps": 9, "schedule": "cosine"}, 50),
            ({"sampler": "dpm++"}, {"sampler": "dpm++", "steps": 9}, 50),
            ({"sampler": "ddpm"}, {"steps": 50}, 50),
            ({"sampler": "ddim"}, {"steps": 50}, 50),
            ({"steps": 3}, {"sampler": "ddim", "steps": 7, "eta": 0.5}, 50),
            ({"sampler": "ddim", "eta": 0.25, "schedule": "interpolated"}, {}, 200),
            ({"sampler": "ddim"}, {}, 10),
            ({"sampler": "dpm++"}, {}, 10),
            ({"sampler": "fast"}, {}, 50),
            ({"sampler": "fast"}, {}, 10),  # more noise than the last timestep has
            ({"sampler": "fast"}, {}, 2),
            ({"sampler": "fast", "steps": 7}, {}, 50),
            ({"sampler": "ddpm", "steps": 20}, {}, 50),
            ({"sampler": "ddim", "steps": 0}, {}, 50),
            ({"sampler": "ddim", "steps": 51}, {}, 50),
            ({"sampler": "dpm++", "steps": -3}, {}, 50),
            ({"eta": 0.0}, {}, 50),
            ({"sampler": "dpm++", "eta": 1e-7}, {}, 50),
            ({"sampler": "euler"}, {}, 50),
            ({"sampler": "it's"}, {}, 50),
            ({"sampler": "a \\ \"b\" 'c'\n\t\x7f\u2028\U000e0001 é"}, {}, 50),
            ({"schedule": "sigmoid"}, {}, 50),
            ({"steps": "10"}, {}, 50),
            ({"steps": 2.5}, {}, 50),
            ({"steps": True}, {}, 50),
            ({"steps": None}, {}, 50),
            ({"eta": "much"}, {}, 50),
            ({"eta": False}, {}, 50),
            ({"sampler": 5}, {}, 50),
            ({"sampler": 1e-07}, {}, 50),
            ({"sampler": 1234.5625e2}, {}, 50),
            ({"schedule": -0.00012}, {}, 50),
            ({"speed": 5}, {}, 50),
            ({"sampler": "dpm++sde"}, {}, 50),
            ({"sampler": "unipc"}, {}, 5),
            ({"sampler": "unipc", "timesteps": "49, 7,0"}, {}, 50),
            ({"timesteps": "49,7,0"}, {"sampler": "ddim", "steps": 9, "eta": 0.5}, 50),
            ({"steps": 7}, {"sampler": "ddim", "steps": 2, "timesteps": "49,7"}, 50),
            ({}, {"sampler": "ddim", "steps": 2, "timesteps": "49,7"}, 50),
            ({"sampler": "unipc"}, {"sampler": "ddim", "steps": 2, "timesteps": "49,7"}, 50),
            ({"timesteps": "49,7"}, {}, 50),
            ({"sampler": "ddim", "steps": 3, "timesteps": "49,7"}, {}, 50),
            ({"sampler": "unipc", "timesteps": "50,7"}, {}, 50),
            ({"sampler": "dpm++", "timesteps": "7,49"}, {}, 50),
            ({"sampler": "dpm++sde", "timesteps": "7,7"}, {}, 50),
            ({"timesteps": "7;3"}, {}, 50),
            ({"timesteps": "49,1 2"}, {}, 50),
            ({"sampler": "ddim", "timesteps": " 49 ,12 "}, {}, 50),
            ({"timesteps": 7}, {}, 50),
            ({"timesteps": ""}, {}, 50),
        ]
    ],
    "eta": [
        {"eta": eta}
        for eta in (
            1.5,
            10,
            -0.1,
            123456,
            1234567,
            -1e-5,
            -2.5e-9,
            1e100,
            1 + 1e-7,
            1.000004,
            99999.95,
            "nan",
            "inf",
            "-inf",
        )
    ],
    "form": [
        {"given": {"sampler": "", "steps": "", "schedule": "", "eta": "", **given}, "usual": usual, "steps": 50}
        for given, usual in [
            ({}, {"sampler": "ddpm", "steps": 50, "schedule": "linear", "eta": None}),
            ({"sampler": "ddim", "steps": "10", "eta": ".5"}, {}),
            ({"sampler": "ddim", "steps": "+10", "eta": "1"}, {}),
            ({"sampler": "ddim", "eta": "1e-5"}, {}),
            ({"steps": "ten"}, {}),
            ({"steps": "2.5"}, {}),
            ({"sampler": "ddim", "steps": "0x10"}, {}),
            ({"eta": "half"}, {}),
            ({"eta": "."}, {}),
            ({"sampler": "ddim", "eta": "2"}, {}),
        ]
    ],
    "tiles": [
        {"hop": 4, "halo": halo, "most": most, "frames": frames}
        for halo, most, frames in [
            *((3, 10, frames) for frames in range(1, 40)),
            *((0, 1, frames) for frames in (1, 7)),
            (13, 512, 3000),
            (5, 10, 20),
        ]
    ],
    "chain": [
        *(
            chain(given, numSteps=total)
            for given in (
                {},
                {"sampler": "ddim"},
                {"sampler": "ddim", "steps": 7, "eta": 1.0},
                {"sampler": "ddim", "steps": 10, "eta": 0.3, "schedule": "cosine"},
                {"sampler": "dpm++"},
                {"sampler": "dpm++", "steps": 1},
                {"sampler": "dpm++", "steps": 13, "schedule": "interpolated"},
                {"sampler": "dpm++sde"},
                {"sampler": "dpm++sde", "steps": 2, "schedule": "interpolated"},
                {"sampler": "dpm++sde", "timesteps": "49,31,8,0"},
                {"sampler": "unipc"},
                {"sampler": "unipc", "steps": 2},
                {"sampler": "unipc", "steps": 13, "schedule": "interpolated"},
                {"sampler": "unipc", "timesteps": "49,31,8,0"},
                {"sampler": "dpm++", "timesteps": "49,31,8,0"},
                {"sampler": "ddim", "eta": 0.5, "timesteps": "49,31,8,0"},
                {"schedule": "cosine"},
                {"schedule": "interpolated"},
            )
            for total in (50, 200)
            if given.get("steps", 0) <= total
        ),
        chain({"sampler": "fast"}),
        chain({"sampler": "fast"}, numSteps=1000),
        chain({"sampler": "fast", "schedule": "cosine"}),
        chain({}, usual={"sampler": "dpm++", "steps": 5}, seed=str(LAST), first=10**12 + 1),
        chain({"sampler": "ddim"}, most=500),  # a single tile
        chain({"sampler": "ddim"}, numSteps=1),
        chain({"sampler": "ddim"}, most=2),  # tiles that are all halo
        chain({"sampler": "ddim"}, seed="-1"),
        chain({"sampler": "dpm++", "steps": 60}),
    ],
    "progress": [
        {"steps": 4},
        {"steps": 4, "abortAfter": 2},
        {"steps": 4, "abortAfter": 0},
        {"steps": 4, "length": 9},
    ],
}
