"""Compute the outputs of the original libraries for weights and images, in a subprocess.

    PYTHONPATH=.venv/originals python tests/originals/compute.py densenet_121 FOLDER

reads FOLDER/images/*.png and the weights there (or makes them, where they are a pickled object of
the library's own class), and writes FOLDER/expected.npy, or for `fid` FOLDER/expected.npz.
"""

import importlib.util
import sys
import types
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torchvision_beside_cpu_torch import import_torchvision


def images_of(folder: Path) -> list[Path]:
    return sorted((folder / "images").glob("*.png"))


def inception_v3(folder: Path) -> np.ndarray:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(folder / "weights.pth")
    ).eval()
    rows = []
    for path in images_of(folder):
        pixels = np.array(Image.open(path).convert("RGB"))
        (row,) = network(torch.from_numpy(pixels).permute(2, 0, 1)[None])
        rows.append(row)
    return torch.cat(rows).numpy()


def densenet_121(folder: Path) -> np.ndarray:
    import torchvision
    import torchxrayvision as xrv

    torch.manual_seed(0)
    network = xrv.models.DenseNet(
        num_classes=18, in_channels=1, **xrv.models.get_densenet_params("densenet121")
    )
    randomise(network)
    torch.save(network, folder / "weights.pt")  # as the library publishes its models
    prepare = torchvision.transforms.Compose(
        [xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(224, engine="skimage")]
    )
    rows = []
    for path in images_of(folder):
        gray = xrv.datasets.normalize(np.array(Image.open(path).convert("L")), 255)
        rows.append(network.features2(torch.from_numpy(prepare(gray[None])).float()[None]))
    return torch.cat(rows).numpy()


def biovil_t_image(folder: Path) -> np.ndarray:
    from health_multimodal.image.data.transforms import create_chest_xray_transform_for_inference
    from health_multimodal.image.inference_engine import ImageInferenceEngine
    from health_multimodal.image.model.model import ImageModel
    from health_multimodal.image.model.types import ImageEncoderType

    torch.manual_seed(0)
    network = ImageModel(ImageEncoderType.RESNET50_MULTI_IMAGE.value, joint_feature_size=128)
    randomise(network)
    torch.save(network.state_dict(), folder / "weights.pt")
    engine = ImageInferenceEngine(network, create_chest_xray_transform_for_inference(512, 448))
    return torch.stack(
        [engine.get_projected_global_embedding(path) for path in images_of(folder)]
    ).numpy()


def biovil_t_text(folder: Path) -> np.ndarray:
    from health_multimodal.text.model import CXRBertConfig, CXRBertModel
    from transformers import BertTokenizer

    torch.manual_seed(0)
    words = (folder / "vocab.txt").read_text().split("\n")
    config = CXRBertConfig(
        vocab_size=len(words),
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        projection_size=16,
        attn_implementation="eager",
    )
    network = CXRBertModel(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    network.save_pretrained(folder / "model")
    tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"))
    rows = []
    for caption in (folder / "captions.txt").read_text().split("\n"):
        tokens = tokenizer(caption.rstrip("!?."), return_tensors="pt")
        rows.append(
            network.get_projected_text_embeddings(tokens["input_ids"], tokens["attention_mask"])
        )
    return torch.cat(rows).numpy()


def cxas(folder: Path) -> np.ndarray:
    place = Path(importlib.util.find_spec("cxas").submodule_search_locations[0])
    for name in ("cxas", "cxas.models"):  # whose own __init__ asks for what is not installed
        package = types.ModuleType(name)
        package.__path__ = [str(place.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    for name in (  # that write predictions
        "cxas.label_mapper",
        "cxas.io_utils.create_annotations",
        "cxas.io_utils.dicomseg_2d",
        "cxas.io_utils.mask_to_coco",
    ):
        sys.modules[name] = mock.MagicMock()
    from cxas.file_io import FileLoader
    from cxas.models.UNet.backbone_unet import BackboneUNet

    network = BackboneUNet("UNet_ResNet50_default", 159).eval()
    state = torch.load(folder / "weights.pth", weights_only=True)["model"]
    network.load_state_dict({k.removeprefix("module."): v for k, v in state.items()}, strict=True)
    loader = FileLoader("cpu")
    rows = []
    for path in images_of(folder)[::2]:
        found = network(loader.load_image(str(path)))
        kept = [found["logits"], found["segmentation_preds"].float()]
        rows.append(torch.stack([maps[0, [31, 32]] for maps in kept]))
    return torch.stack(rows).numpy()


def reid(folder: Path) -> np.ndarray:
    import torchvision

    network = torchvision.models.resnet50(weights=None)
    network.fc = torch.nn.Linear(network.fc.in_features, 128)
    state = torch.load(folder / "weights.pth", weights_only=True)
    weights = {name.removeprefix("model."): t for name, t in state.items() if name[:6] == "model."}
    network.load_state_dict(weights)
    prepare = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize((256, 256)),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    inputs = [prepare(Image.open(path).convert("RGB")) for path in images_of(folder)]
    return torch.sigmoid(network.eval()(torch.stack(inputs))).numpy()


def fid(folder: Path) -> dict[str, float]:
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import poly_mmd

    class Features(torch.nn.Module):
        num_features = 24

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    real, generated = (np.load(folder / f"{side}.npy") for side in ("real", "generated"))
    metric = FrechetInceptionDistance(
        feature=Features(), input_img_size=(1, 1, 24), normalize=True
    ).set_dtype(torch.float64)
    metric.used_custom_model = True
    for side, is_real in ((real, True), (generated, False)):
        metric.update(torch.from_numpy(side), real=is_real)
    kid = float("nan")
    if len(real) == len(generated):  # it takes both sides for equally large
        kid = poly_mmd(torch.from_numpy(real), torch.from_numpy(generated))
    return {"fid": float(metric.compute()), "kid": float(kid)}


def randomise(network: torch.nn.Module) -> None:
    """Randomise convolutions and batch norms so that the image keeps its contrast."""
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    network.eval()


if __name__ == "__main__":
    import_torchvision()
    name, where = sys.argv[1], Path(sys.argv[2])
    with torch.inference_mode():
        found = globals()[name](where)
    if isinstance(found, dict):
        np.savez(where / "expected.npz", **found)
    else:
        np.save(where / "expected.npy", found)
