"""Diffusion sampling: noise schedules, the noise field, samplers, and the chain that a request asks for.

This package is the only implementation in Python. `gomin-export` copies it, unchanged, beside the Triton model that
runs the chain on the server. It therefore imports only numpy and the standard library, imports its own modules
relatively, and runs on Python 3.10. Browsers have a second implementation, ``clients/gomin_gateway/web/sampling/``;
tests compare it with this one.

Axes: B batch, M mel bands, T mel frames, N = hop_length·T waveform samples. ᾱ_t is the share of the signal's power that
is left at timestep t. The timesteps of a model are 0 … num_diffusion_steps - 1, in order of rising noise.

==================  ==================================================================================================
``registry.py``     the names of samplers and schedules; makes a sampler by its name
``settings.py``     `SamplerSettings`: the sampler, steps, schedule, eta and timesteps that a request chooses
``base.py``         the types that samplers share, and the loop that runs one chain
``schedules.py``    `NoiseSchedule`
``noise.py``        `NoiseField`: noise as a function of seed, draw and sample index
``ddpm.py`` …       one sampler a file
``spacing.py``      timesteps of the samplers that take some of the trained ones
``tiling.py``       `Tiling`: long mels are denoised in tiles
``jobs.py``         `sample_jobs`: many chains that share denoiser calls; `DiffusionModel`: the chain of a config.pbtxt
==================  ==================================================================================================

To add a sampler, write one file with a class that implements `base.Sampler` and a function ``make(schedule,
steps=None)``, with a parameter ``eta`` if it has an eta and ``timesteps=None`` if it takes explicit timesteps, and add
one line to the table in ``registry.py``. Options, help texts, request parameters, the local transport and the next
export include it then. For pages without a server, write it in JavaScript too. A sampler of your own that lives outside
this package is registered with `registry.register`; it runs in-process only, because a Triton server has the samplers
that were exported with its model.
"""
