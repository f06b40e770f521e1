"""The parity gate: its cases, its comparison and its records."""
