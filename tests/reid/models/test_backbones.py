import pytest
import torch
import torchvision
from torch import nn

from reid.models import Backbone, resnet

# Millions of parameters without the classifier: core_reid spec section 3.5.
MILLIONS = {
    "resnet18": 11.18,
    "resnet34": 21.28,
    "resnet50": 23.51,
    "resnet101": 42.50,
    "resnet152": 58.14,
}


@pytest.mark.parametrize("name", MILLIONS)
def test_every_depth_gives_maps_of_its_channels(name):
    backbone = resnet(name, weights=None, last_stride=1, seed=0).eval()
    with torch.no_grad():
        out = backbone(torch.rand(1, 3, 32, 16, generator=torch.Generator().manual_seed(0)))
    channels = 512 if name in ("resnet18", "resnet34") else 2048
    assert backbone.num_channels == channels
    assert out.shape == (1, channels, 2, 1)
    assert bool(out.isfinite().all())
    count = sum(parameter.numel() for parameter in backbone.parameters())
    assert count / 1e6 == pytest.approx(MILLIONS[name], abs=0.005)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_last_stride_doubles_the_map_and_changes_no_weight(name):
    images = torch.rand(1, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    small, large = (
        resnet(name, weights=None, last_stride=stride, seed=0).eval() for stride in (2, 1)
    )
    with torch.no_grad():
        assert small(images).shape[2:] == (2, 1)
        assert large(images).shape[2:] == (4, 2)
    assert all(
        torch.equal(a, b) for a, b in zip(small.parameters(), large.parameters(), strict=True)
    )


def test_last_stride_1_of_a_bottleneck_is_torchvisions_undilated_stride_1_block():
    # With dilation instead of stride, torchvision's first block of a stage has stride 1 and the
    # dilation of the stage before, which is none: an independent build of the same block.
    backbone = resnet("resnet50", weights=None, last_stride=1, seed=0).eval()
    other = torchvision.models.resnet50(replace_stride_with_dilation=[False, False, True]).eval()
    other.layer4.load_state_dict(backbone.layer4.state_dict())
    maps = torch.rand(1, 1024, 4, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(backbone.layer4[0](maps), other.layer4[0](maps))


def test_map_is_what_torchvision_pools(tmp_path):
    whole = torchvision.models.resnet18().eval()
    torch.save(whole.state_dict(), tmp_path / "weights.pt")
    backbone = resnet("resnet18", weights=tmp_path / "weights.pt", last_stride=2, seed=0).eval()
    images = torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = whole.fc(backbone(images).mean((2, 3)))
        torch.testing.assert_close(logits, whole(images), rtol=1e-4, atol=1e-4)


def test_imagenet_weights_are_torchvisions_first_version(monkeypatch):
    asked = []
    state = torchvision.models.resnet18().state_dict()

    def download(url, **kwargs):
        asked.append(url)
        return state

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    backbone = resnet("resnet18", weights="imagenet", last_stride=1, seed=0)
    assert asked == [torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url]
    assert torch.equal(backbone.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])


def test_weights_of_another_backbone_are_refused(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"missing: layer1\.2\..*another backbone"):
        resnet("resnet34", weights=tmp_path / "weights.pt", last_stride=1, seed=0)


def test_a_file_without_a_state_dict_is_refused(tmp_path):
    torch.save({"epoch": 3, "weights": {}}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="holds no state dict"):
        resnet("resnet18", weights=tmp_path / "weights.pt", last_stride=1, seed=0)


def test_initial_weights_depend_on_the_seed_alone():
    first = resnet("resnet18", weights=None, last_stride=1, seed=3)
    torch.rand(5)
    before = torch.get_rng_state()
    again = resnet("resnet18", weights=None, last_stride=1, seed=3)
    other = resnet("resnet18", weights=None, last_stride=1, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


def test_channels_last_maps_stay_channels_last():
    trunk = torchvision.models.resnet.ResNet(
        torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=1
    )
    backbone: nn.Module = Backbone(trunk, last_stride=1).to(memory_format=torch.channels_last)
    images = torch.zeros(2, 3, 64, 32).contiguous(memory_format=torch.channels_last)
    assert backbone(images).is_contiguous(memory_format=torch.channels_last)
