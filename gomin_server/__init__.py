"""gomin-server: finds a real tritonserver and starts it. Imports nothing of the other packages."""
