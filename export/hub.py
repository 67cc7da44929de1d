"""Models as a hub hands them out: a folder with config.json and weights, in safetensors or as torch saved them.

Hides the byte layout of safetensors (a length, a JSON table, then raw numbers) and what a hub leaves out of a file: a
tensor that has two names is written once, under the first of them.
"""

import json
import mmap
import struct
from pathlib import Path

import torch

from galsearch.errors import GalsearchError, ModelMismatchError

CONFIG_FILE = "config.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
KINDS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_config(folder: Path) -> dict:
    """Return config.json of a model folder; GalsearchError when it is not there, ModelMismatchError when not JSON."""
    path = folder / CONFIG_FILE
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise GalsearchError(
            f"{path}: {error.strerror}; give the folder that holds {CONFIG_FILE} and {' or '.join(WEIGHT_FILES)}"
        ) from None
    except ValueError as error:
        raise ModelMismatchError(f"{path}: not valid JSON ({error}); download the model again") from None
    return found.get("config", found)  # a few versions of the hub's client nest it


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a model folder by their names, floats as float32.

    A name that safetensors lists as an alias of a stored tensor is there too. Raises GalsearchError when the folder has
    no file of weights, ModelMismatchError when it cannot be read.
    """
    for name in WEIGHT_FILES:
        path = folder / name
        if path.is_file():
            found = read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
            return {key: value.float() if value.is_floating_point() else value for key, value in found.items()}
    raise GalsearchError(f"{folder}: no {' and no '.join(WEIGHT_FILES)}; download the weights into this folder")


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of one safetensors file, aliases included; they are views of the mapped file."""
    try:
        with path.open("rb") as file:  # pages are read when a tensor is: an unused decoder costs nothing
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        (length,) = struct.unpack_from("<Q", content)
        table = json.loads(content[8 : 8 + length].decode())
        aliases = table.pop("__metadata__", None) or {}
        found = {name: _tensor(content, 8 + length, entry) for name, entry in table.items()}
    except (struct.error, ValueError, KeyError, RuntimeError) as error:
        raise ModelMismatchError(f"{path}: not a whole safetensors file ({error}); download it again") from None
    return found | {name: found[kept] for name, kept in aliases.items() if kept in found and name not in found}


def _tensor(content: mmap.mmap, start: int, entry: dict) -> torch.Tensor:
    first, last = entry["data_offsets"]
    kind, shape = KINDS[entry["dtype"]], entry["shape"]
    if first == last:
        return torch.empty(shape, dtype=kind)
    if start + last > len(content):
        raise ValueError(f"it ends at byte {len(content)}, a tensor at {start + last}")
    count = (last - first) // kind.itemsize
    return torch.frombuffer(content, dtype=kind, count=count, offset=start + first).reshape(shape)


def _read_pickle(path: Path) -> dict[str, torch.Tensor]:
    """Return the state of a file that torch saved, without running any code in it; a checkpoint's model_state_dict."""
    found = torch.load(path, map_location="cpu", weights_only=True)
    return found.get("model_state_dict", found)


def take(weights: dict[str, torch.Tensor], module: torch.nn.Module, *, name: str) -> torch.nn.Module:
    """Fill a module with the weights of its own names and put it into evaluation mode; other weights are left.

    Raises ModelMismatchError, naming the tensors, when some are missing or have another shape.
    """
    wanted = module.state_dict()
    missing = [key for key in wanted if key not in weights]
    differing = [key for key in wanted if key in weights and weights[key].shape != wanted[key].shape]
    if missing or differing:
        key = (missing or differing)[0]
        said = "is missing" if missing else f"is {list(weights[key].shape)}, expected {list(wanted[key].shape)}"
        raise ModelMismatchError(
            f"{name}: {len(missing)} tensors are missing and {len(differing)} have another shape, the first: {key} "
            f"{said}; its weights do not belong to its {CONFIG_FILE}, or it is another architecture"
        )
    module.load_state_dict({key: weights[key] for key in wanted})
    return module.eval()
