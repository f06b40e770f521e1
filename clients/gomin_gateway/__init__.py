"""An HTTP and WebSocket gateway for people, in front of any URL that `gomin_client` takes."""
