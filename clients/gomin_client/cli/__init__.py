"""The command line of gomin-client."""
