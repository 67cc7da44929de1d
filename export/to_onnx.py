"""Write the trained encoders as ONNX: fp32 first (the reference for parity), then the small files that ship.

Image: weights stored as fp16, computed in fp32. Text: matrices in 8 bits with a scale per output
and 128 inputs, word embeddings in 8 bits with a scale per word, both turned back to fp32 inside the graph.
Run `python -m export.to_onnx`; reads align.pt and text.pt, writes fp32 graphs into the cache folder and
the shipped folders with cards into onnx_models/.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pyarrow.parquet as pq
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from export import cards, train_align, train_image, train_text
from export.facets import wordings
from export.models import (
    DIM,
    MAX_TOKENS,
    Block,
    ImageEncoder,
    ImageTower,
    TextEncoder,
    TextTower,
    load_tokenizer,
    minilm_folder,
    tokenize,
)
from export.prepare import MODEL_PX, cache_folder
from galsearch.language.taught import stems

OPSET = 18
GROUP = 128  # inputs that share a scale; with one for all, an odd sentence kept a cosine of 0.9966, not 0.9996
SHIPPED = Path(__file__).resolve().parent.parent / "onnx_models"


def load_image() -> ImageEncoder:
    """Return the trained image encoder, in evaluation mode."""
    encoder = ImageEncoder(ImageTower())
    encoder.load_state_dict(torch.load(cache_folder() / "align.pt")["encoder"])
    return encoder.eval()


def load_text() -> TextEncoder:
    """Return the trained text encoder, in evaluation mode."""
    encoder = TextEncoder(TextTower())
    encoder.load_state_dict(torch.load(cache_folder() / "text.pt"))
    return encoder.eval()


def without_batch_norm(encoder: ImageEncoder) -> ImageEncoder:
    """Fold every batch norm into the convolution before it (exact in evaluation mode)."""
    tower = encoder.tower
    tower.stem = nn.Sequential(fuse_conv_bn_eval(tower.stem[0], tower.stem[1]), tower.stem[2])
    for block in tower.stages:
        assert isinstance(block, Block)
        block.first, block.first_norm = fuse_conv_bn_eval(block.first, block.first_norm), nn.Identity()
        block.second, block.second_norm = fuse_conv_bn_eval(block.second, block.second_norm), nn.Identity()
        if len(block.shortcut):
            *pool, convolution, norm = block.shortcut
            block.shortcut = nn.Sequential(*pool, fuse_conv_bn_eval(convolution, norm))
    return encoder


def export_graph(encoder: nn.Module, example: tuple, path: Path, *, inputs: list[str], dynamic: dict) -> None:
    """Write a fp32 ONNX file with the output `embedding`.

    The exporter names values after their operator, and a lookup is called `embedding` too: rename afterwards.
    """
    torch.onnx.export(
        encoder,
        example,
        str(path),
        dynamo=True,
        opset_version=OPSET,
        external_data=False,
        verbose=False,
        input_names=inputs,
        output_names=["unit_vectors"],
        dynamic_shapes=dynamic,
    )
    model = onnx.load(path)
    rename_values(model, {"embedding": "looked_up", "unit_vectors": "embedding"})
    onnx.save(model, path)


def rename_values(model: onnx.ModelProto, names: dict[str, str]) -> None:
    """Rename values everywhere in the graph, all at once."""
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for output in model.graph.output:
        output.name = names.get(output.name, output.name)


def export_image(path: Path) -> None:
    """Write the fp32 image graph: image uint8 (n, s, s, 3) -> embedding (n, DIM)."""
    example = torch.randint(0, 255, (2, MODEL_PX, MODEL_PX, 3), dtype=torch.uint8)
    export_graph(
        without_batch_norm(load_image()),
        (example,),
        path,
        inputs=["image"],
        dynamic={"image": {0: torch.export.Dim("n", min=1)}},
    )


def export_text(path: Path) -> None:
    """Write the fp32 text graph: input_ids, attention_mask int64 (n, length) -> embedding (n, DIM)."""
    encoder = load_text()
    encoder.tower.positions = nn.Embedding.from_pretrained(encoder.tower.positions.weight[:MAX_TOKENS].clone())
    tokenizer = load_tokenizer(minilm_folder() / "tokenizer.json")
    example = tokenize(tokenizer, ["spiral galaxy with a bar", "ring"])
    axes = {0: torch.export.Dim("n", min=1), 1: torch.export.Dim("length", min=2, max=MAX_TOKENS)}
    export_graph(
        encoder,
        example,
        path,
        inputs=["input_ids", "attention_mask"],
        dynamic={"input_ids": axes, "attention_mask": axes},
    )


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store float32 weights of 1,024 numbers or more, scales excepted, as fp16 with a Cast to fp32 in front."""
    graph = model.graph
    casts = []
    for weight in graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < 1024 or weight.name.endswith("_scale"):
            continue
        name = weight.name
        array = numpy_helper.to_array(weight).astype(np.float16)
        weight.CopyFrom(numpy_helper.from_array(array, name + "_fp16"))
        casts.append(helper.make_node("Cast", [name + "_fp16"], [name], name=name + "_cast", to=TensorProto.FLOAT))
    for place, node in enumerate(casts):
        graph.node.insert(place, node)
    del graph.value_info[:]
    return model


def quantize_words(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store the word embeddings as int8 rows with a float32 scale each; look both up and multiply."""
    graph = model.graph
    table = max(graph.initializer, key=lambda weight: int(np.prod(weight.dims)))
    gather = next(node for node in graph.node if node.op_type == "Gather" and node.input[0] == table.name)
    values = numpy_helper.to_array(table)
    scale = np.maximum(np.abs(values).max(axis=1, keepdims=True), 1e-8) / 127
    rows = np.rint(values / scale).astype(np.int8)
    graph.initializer.remove(table)
    graph.initializer.extend(
        [numpy_helper.from_array(rows, "words_int8"), numpy_helper.from_array(scale.astype(np.float32), "words_scale")]
    )
    ids, out = gather.input[1], gather.output[0]
    nodes = [
        helper.make_node("Gather", ["words_int8", ids], ["words_rows"], axis=0),
        helper.make_node("Cast", ["words_rows"], ["words_float"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["words_scale", ids], ["words_scales"], axis=0),
        helper.make_node("Mul", ["words_float", "words_scales"], [out]),
    ]
    place = list(graph.node).index(gather)
    graph.node.remove(gather)
    for offset, node in enumerate(nodes):
        graph.node.insert(place + offset, node)
    return model


def quantize_matrices(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store constant matrices as int8 with a float32 scale per output and GROUP inputs, multiplied out at the start.

    Standard operators that constant folding removes: queries then run at fp32 speed. MatMulNBits, which keeps 8 bits
    while running, took 18 ms a query where this takes 3, or had to round the activations to 8 bits as well.
    """
    graph = model.graph
    across = {node.input[1]: int(is_transposed(node)) for node in graph.node if node.op_type in ("MatMul", "Gemm")}
    nodes = []
    for weight in list(graph.initializer):
        if weight.name not in across or len(weight.dims) != 2:
            continue
        name, values = weight.name, numpy_helper.to_array(weight)
        grouped = in_groups(values, axis=across[name])
        scale = np.maximum(np.abs(grouped).max(axis=across[name] + 1, keepdims=True), 1e-8) / 127
        graph.initializer.remove(weight)
        for part, array in {
            "int8": np.rint(grouped / scale).astype(np.int8),
            "scale": scale.astype(np.float32),
            "shape": np.array(values.shape),
        }.items():
            graph.initializer.append(numpy_helper.from_array(array, f"{name}_{part}"))
        nodes.append(helper.make_node("Cast", [f"{name}_int8"], [f"{name}_float"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [f"{name}_grouped"]))
        nodes.append(helper.make_node("Reshape", [f"{name}_grouped", f"{name}_shape"], [name]))
    for place, node in enumerate(nodes):
        graph.node.insert(place, node)
    return model


def in_groups(values: np.ndarray, *, axis: int) -> np.ndarray:
    """Return a matrix with the axis of its inputs cut in two: groups, and the GROUP inputs of each."""
    rows, columns = values.shape
    return values.reshape((rows // GROUP, GROUP, columns) if axis == 0 else (rows, columns // GROUP, GROUP))


def is_transposed(node: onnx.NodeProto) -> bool:
    """Say whether a Gemm takes its weights as (outputs, inputs)."""
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)


def write_folder(model: onnx.ModelProto, card: dict, *, tokenizer: bytes | None = None) -> Path:
    """Write model.onnx, tokenizer.json and card.json (digests filled in) of one shipped model."""
    folder = SHIPPED / card["id"]
    folder.mkdir(parents=True, exist_ok=True)
    content = model.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    card["sha256"] = hashlib.sha256(content).hexdigest()
    if tokenizer is not None:
        (folder / "tokenizer.json").write_bytes(tokenizer)
        card["tokenizer_sha256"] = hashlib.sha256(tokenizer).hexdigest()
    write_card(folder, card)
    return folder


def write_card(folder: Path, card: dict) -> None:
    """Write card.json."""
    (folder / "card.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n")


def base_card(model_id: str, kind: str, *, script: str, seeds: list[int]) -> dict:
    """Return what both cards share; counts are of pictures in the training split."""
    table = pq.read_table(cache_folder() / "splits.parquet").to_pylist()
    counts: dict[str, int] = {}
    for row in table:
        counts[row["set"]] = counts.get(row["set"], 0) + (row["split"] == "train")
    return {
        "id": model_id,
        "version": cards.VERSION,
        "kind": kind,
        "embedding": "image",
        "dim": DIM,
        "metric": "cosine",
        "sha256": "",
        "space": cards.SPACE,
        "output": "embedding",
        "training": {
            "sets": cards.training_sets(counts),
            "semi_synthetic": {"pictures": synthetic_counts(), "note": cards.SYNTHETIC},
            "seed": seeds,
            "script": script,
        },
    }


def synthetic_counts() -> dict[str, int]:
    """Return how many semi-synthetic pictures of each kind there were to train on."""
    kinds = pq.read_table(cache_folder() / "synthetic.parquet", columns=["kind"])["kind"].to_pylist()
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def image_card() -> dict:
    """Return the image card without digest and self-test outputs."""
    stretch = "display-ready 8-bit RGB with dark sky; cut so that the galaxy fills a third to all of the frame"
    size = {"size_px": MODEL_PX, "layout": "NHWC", "dtype": "uint8", "bands": "RGB", "stretch": stretch}
    return base_card(
        cards.IMAGE_ID,
        "image",
        script="export/train_image.py, export/synthetic.py, export/train_align.py",
        seeds=[train_image.SEED, train_align.SEED],
    ) | {
        "input": size | {"resize": "center-crop to a square, antialiased bicubic"},
        "activation_bytes_per_row": 1_000_000,
        "license": "MIT",
        "notices": [cards.SDSS_NOTICE],
        "precision": "weights fp16, arithmetic fp32",
    }


def text_card() -> dict:
    """Return the text card without digests and self-test outputs."""
    card = base_card(cards.TEXT_ID, "text", script="export/train_text.py", seeds=[train_text.SEED])
    base = {
        "name": "all-MiniLM-L6-v2",
        "rows": 0,
        "credit": "sentence-transformers; starting weights",
        "license": "Apache-2.0",
    }
    card["training"]["sets"].insert(0, base)
    return card | {
        "input": {"max_tokens": MAX_TOKENS, "tokenizer": "tokenizer.json"},
        "taught_words": sorted(stems(wordings())),
        "activation_bytes_per_row": 2_500_000,
        "license": "Apache-2.0",
        "notices": [cards.MINILM_NOTICE, cards.SDSS_NOTICE],
        "precision": "matrices 8-bit by output, word embeddings 8-bit by word, arithmetic fp32",
    }


def shipped_tokenizer() -> bytes:
    """Return tokenizer.json with padding and truncation off."""
    return load_tokenizer(minilm_folder() / "tokenizer.json").to_str().encode()


def add_self_test(folder: Path) -> None:
    """Run the shipped graph on the card's inputs and write inputs and outputs into the card."""
    from galsearch.encode import Encoder

    card = json.loads((folder / "card.json").read_text())
    inputs = cards.SELF_TEST_TEXTS if card["kind"] == "text" else cards.drawn_pictures()
    outputs = Encoder.from_folder(folder, device="cpu").encode(inputs)
    stored = inputs if card["kind"] == "text" else [cards.png_base64(picture) for picture in inputs]
    card["self_test"] = {"inputs": stored, "outputs": np.round(outputs.astype(float), 6).tolist(), "min_cosine": 0.999}
    write_card(folder, card)


def main() -> None:
    """Export both encoders and write both folders."""
    cache = cache_folder()
    export_image(cache / "image_fp32.onnx")
    export_text(cache / "text_fp32.onnx")
    image = halve(onnx.load(cache / "image_fp32.onnx"))
    text = halve(quantize_matrices(quantize_words(onnx.load(cache / "text_fp32.onnx"))))
    for folder in (write_folder(image, image_card()), write_folder(text, text_card(), tokenizer=shipped_tokenizer())):
        add_self_test(folder)
        print(f"{folder.name}: {(folder / 'model.onnx').stat().st_size / 1e6:.1f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
