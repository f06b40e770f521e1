"""Safe, strict loading of checkpoints.

==================  ==================================================================================================
``loading.py``      `load_network`: config from the tensors, weights strictly; `detect_kind`; `read_config_file`
``sources.py``      a file or the Hugging Face Hub: finds or downloads the file, checks its hash
``reader.py``       `CheckpointReader`: the tensors, and the settings that their shapes show
``state_dicts.py``  the state dict in a file's object: wrappers, prefixes, names of modules that are not the network's
``weight_norm.py``  folds weight normalisation into plain weights
``files.py``        reads a file without running code from it, and names what a wrong file is
==================  ==================================================================================================
"""

from gomin_export.checkpoints.loading import detect_kind, load_network, read_checkpoint, read_config_file
from gomin_export.checkpoints.reader import CheckpointReader

__all__ = ["CheckpointReader", "detect_kind", "load_network", "read_checkpoint", "read_config_file"]
