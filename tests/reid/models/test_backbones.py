import pytest
import torch
import torchvision
from torch import nn

from reid.models import Backbone, resnet
from reid.models.ibn import IBN

# Millions of parameters without the classifier: core_reid spec section 3.5.
MILLIONS = {
    "resnet18": 11.18,
    "resnet34": 21.28,
    "resnet50": 23.51,
    "resnet101": 42.50,
    "resnet152": 58.14,
}
# Instance norm beside BatchNorm has as many parameters as BatchNorm alone.
for plain in ("resnet18", "resnet34", "resnet50", "resnet101"):
    MILLIONS[f"{plain}_ibn"] = MILLIONS[plain]


@pytest.mark.parametrize("name", MILLIONS)
def test_every_depth_gives_maps_of_its_channels(name):
    backbone = resnet(name, weights=None, last_stride=1, seed=0).eval()
    with torch.no_grad():
        out = backbone(torch.rand(1, 3, 32, 16, generator=torch.Generator().manual_seed(0)))
    channels = 512 if name.startswith(("resnet18", "resnet34")) else 2048
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


def test_ibn_standardises_half_of_the_channels_image_by_image():
    maps = torch.randn(4, 6, 5, 3, generator=torch.Generator().manual_seed(0))
    maps = maps * torch.arange(1, 5).view(4, 1, 1, 1) + torch.arange(4).view(4, 1, 1, 1)
    layer = IBN(6)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.rand(3, generator=torch.Generator().manual_seed(1)))
    out = layer(maps)
    for channel in range(6):
        norm = layer.IN if channel < 3 else layer.BN
        weight, bias = norm.weight[channel % 3], norm.bias[channel % 3]
        for image in range(4):
            pixels = maps[image, channel] if channel < 3 else maps[:, channel]
            spread = torch.sqrt(pixels.var(unbiased=False) + 1e-5)
            expected = (maps[image, channel] - pixels.mean()) / spread * weight + bias
            torch.testing.assert_close(out[image, channel], expected, rtol=1e-4, atol=1e-5)
    last = layer(maps.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, out)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = layer(maps.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), out, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_ibn_is_the_first_norm_of_each_block_of_three_stages(name):
    plain = resnet(name, weights=None, last_stride=1, seed=0)
    backbone = resnet(f"{name}_ibn", weights=None, last_stride=1, seed=0)
    kinds = {n: type(layer) for n, layer in backbone.named_modules() if n.endswith("bn1")}
    for layer, kind in kinds.items():
        inside = layer.startswith(("layer1", "layer2", "layer3"))
        assert kind is (IBN if inside else nn.BatchNorm2d), layer
    own = dict(backbone.named_parameters())
    for parameter_name, value in plain.named_parameters():
        if parameter_name in own:  # the same first weights: norms draw none
            assert torch.equal(own[parameter_name], value), parameter_name
    assert {n for n in own if n not in dict(plain.named_parameters())} == {
        f"{layer}.{half}.{tensor}"
        for layer, kind in kinds.items()
        if kind is IBN
        for half in ("IN", "BN")
        for tensor in ("weight", "bias")
    }


def test_released_ibn_weights_are_checked_by_name(tmp_path):
    released = resnet("resnet18_ibn", weights=None, last_stride=2, seed=5).state_dict()
    released["fc.weight"], released["fc.bias"] = torch.zeros(1000, 512), torch.zeros(1000)
    torch.save(released, tmp_path / "ibn.pt")
    backbone = resnet("resnet18_ibn", weights=tmp_path / "ibn.pt", last_stride=1, seed=0)
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, released[name]), name
    with pytest.raises(ValueError, match=r"missing: layer1\.0\.bn1\.weight"):
        resnet("resnet18", weights=tmp_path / "ibn.pt", last_stride=1, seed=0)
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "plain.pt")
    with pytest.raises(ValueError, match=r"missing: layer1\.0\.bn1\.IN\.weight"):
        resnet("resnet18_ibn", weights=tmp_path / "plain.pt", last_stride=1, seed=0)


def test_torchvision_has_no_ibn_weights():
    with pytest.raises(ValueError, match="no ImageNet weights of resnet50_ibn: give the path"):
        resnet("resnet50_ibn", weights="imagenet", last_stride=1, seed=0)
