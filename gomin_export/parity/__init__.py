"""The parity gate, what it feeds, and what it records."""
