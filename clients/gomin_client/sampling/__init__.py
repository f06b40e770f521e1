"""Diffusion sampling: noise schedules, the noise field, samplers and their chains."""
