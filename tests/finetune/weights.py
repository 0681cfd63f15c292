"""What a safetensors file holds, whatever the order in which its header names it.

safetensors writes metadata of several keys, as an adapter's file has them, in an order of chance.
"""

from safetensors import safe_open


def weights_in(path):
    """Return a file's metadata, and each tensor's type, shape and bytes by name."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return file.metadata(), {
            name: (tensor.dtype, tuple(tensor.shape), tensor.numpy().tobytes())
            for name, tensor in tensors.items()
        }
