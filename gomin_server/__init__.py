"""gomin-server: finds a real tritonserver and runs it. It imports none of the project's other packages."""
