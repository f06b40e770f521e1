"""The import path of `to_gomin` in version 0.1; new code imports it from `gomin_client`."""

from gomin_client.mel.scales import to_gomin as to_gomin
