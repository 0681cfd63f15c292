import pytest
import torch

from workflow_scripts.common.resnet import ResNet, resnet_for


def test_resnet50_has_torchvisions_keys_and_size():
    with torch.device("meta"):
        network = ResNet()
    state = network.state_dict()
    assert len(state) == 320
    assert sum(p.numel() for p in network.parameters()) == 25_557_032
    assert state["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    assert state["layer4.2.conv3.weight"].shape == (2048, 512, 1, 1)
    assert network.layer2[0].conv2.stride == (2, 2)
    assert network.layer2[0].conv1.stride == (1, 1)


@pytest.mark.parametrize(("depths", "width"), [((1, 1, 1, 1), 4), ((1, 2, 1, 1), 8)])
def test_the_network_takes_its_size_from_the_weights(depths, width):
    torch.manual_seed(0)
    original = ResNet(depths, width, 5).eval()
    copy = resnet_for(original.state_dict()).eval()
    copy.load_state_dict(original.state_dict(), strict=True)
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(copy(x), original(x))
    assert copy.features(x).shape == (2, width * 32, 2, 2)


def test_it_equals_the_resnet_of_transformers():
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    peer = ResNetModel(
        ResNetConfig(
            embedding_size=8, hidden_sizes=[32, 64, 128, 256], depths=[1, 2, 1, 1],
            layer_type="bottleneck", downsample_in_bottleneck=False,
        )
    ).eval()  # fmt: skip
    network = ResNet((1, 2, 1, 1), 8, 3).eval()
    names = {"normalization": "bn", "convolution": "conv"}
    renamed = {}
    for key, value in peer.state_dict().items():
        parts = key.split(".")
        kind, rest = names[parts[-2]], parts[-1]
        if key.startswith("embedder"):
            renamed[f"{kind}1.{rest}"] = value
            continue
        stage, block = int(parts[2]) + 1, parts[4]
        if parts[5] == "shortcut":
            index = 0 if kind == "conv" else 1
            renamed[f"layer{stage}.{block}.downsample.{index}.{rest}"] = value
        else:
            renamed[f"layer{stage}.{block}.{kind}{int(parts[6]) + 1}.{rest}"] = value
    renamed |= {k: v for k, v in network.state_dict().items() if k.startswith("fc")}
    network.load_state_dict(renamed, strict=True)
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(network.features(x), peer(x).last_hidden_state)
