"""Every choice that a network's config offers, as the settings that select it; one list for all tests of them."""

BACKBONES = {
    "efficientnet_v2_s": [],
    "vgg16": ["network.backbone.name=vgg16"],
    "vgg16_bn": ["network.backbone.name=vgg16_bn"],
    "resnet34": ["network.backbone.name=resnet34"],
    "resnet50": ["network.backbone.name=resnet50"],
    "convnext_small": ["network.backbone.name=convnext_small"],
    "timm plain": ["network.backbone.name=timm/resnet18"],
    "timm efficientnet": ["network.backbone.name=timm/efficientnet_lite0"],
    "timm channels last": ["network.backbone.name=timm/swin_tiny_patch4_window7_224"],
    "timm side by side": ["network.backbone.name=timm/hrnet_w18_small"],
}
DECODERS = {
    name: [f"network.decoder.name={name}"]
    for name in ("unet", "fpn", "unetplusplus", "manet", "linknet", "upernet", "segformer")
}
PYRAMID = "network.decoder.pyramid."
FPN = "network.decoder.name=fpn"
# What needs no backbone of its own: tests put a thin one in place of EfficientNetV2-S.
PARTS = {
    "learned positions": ["network.neck.positions=learned"],
    "no transformer": ["network.neck.depth=0"],
    "attention on three levels": ["network.neck.levels=[F3, S16, F4]"],
    "no skips": ["network.decoder.skips=[]"],
    "skips without S16": ["network.decoder.skips=[F1, F2, F3]"],
    "projections": ["network.backbone.projection={F1: 64, F2: 128, F3: 256, F4: 512}"],
    "stride 1": ["network.decoder.output_stride=1"],
    "stride 4": ["network.decoder.output_stride=4"],
    "frozen batch norm": ["network.backbone.frozen_batch_norm=true"],
    "normal initialisation": ["network.initialisation=normal"],
    "kaiming initialisation": ["network.initialisation=kaiming"],
    "side by side, stride 4": [
        "network.backbone.name=timm/hrnet_w18_small",
        "network.decoder.name=unetplusplus",
        "network.decoder.output_stride=4",
    ],
    "fpn 64": [FPN, f"{PYRAMID}channels=64"],
    "fpn 256": [FPN, f"{PYRAMID}channels=256"],
    "fpn leaky": [FPN, f"{PYRAMID}activation=leaky_relu"],
    "fpn without norm": [FPN, f"{PYRAMID}norm=none"],
    "fpn enhanced": [FPN, f"{PYRAMID}enhancement=true"],
    "fpn three convolutions": [FPN, f"{PYRAMID}smoothing_convs=3"],
    "fpn coarser levels": [FPN, f"{PYRAMID}extra_levels=2"],
    "fpn without smoothing": [FPN, f"{PYRAMID}smoothing_convs=0"],
    "fpn as torchvision": [FPN, f"{PYRAMID}order=conv_norm_act", f"{PYRAMID}lateral=block"],
    "fpn pooled level": [FPN, f"{PYRAMID}extra=max_pool", f"{PYRAMID}extra_levels=1"],
    "fpn P6 and P7": [FPN, f"{PYRAMID}extra=p6p7_from_p5", f"{PYRAMID}extra_levels=2"],
    "fpn bottom up": [FPN, f"{PYRAMID}paths=bottom_up"],
    "fpn both ways": [FPN, f"{PYRAMID}paths=both", f"{PYRAMID}extra_levels=1"],
    "fpn of two levels": [FPN, "network.decoder.skips=[F2]"],
    "queries": ["network.head.name=queries", "network.head.width=64"],
    "queries apart": ["network.head.name=queries", "network.head.width=64", "network.head.self_attention=false"],
    "classes, average": ["network.classification={hidden: 32}"],
    "classes of levels": [
        *(FPN, f"{PYRAMID}extra=p6p7_from_c5", f"{PYRAMID}extra_levels=2"),
        "network.classification={maps: [F4, P3, P7], input_dropout: 0.2, hidden: 32}",
    ],
    "classes, maximum": ["network.classification={pooling: max, hidden: 0, targets: [slip]}"],
}
# As torchvision builds a detector's ResNet-50 (systems of this kind train its last three layers).
RESNET50_FPN = [
    "network.backbone.name=resnet50",
    "network.backbone.frozen_batch_norm=true",
    "network.neck.depth=0",
    FPN,
    "network.decoder.skips=[F2, F3, S16]",
    f"{PYRAMID}channels=256",
    f"{PYRAMID}activation=none",
    f"{PYRAMID}enhancement=true",
    "network.initialisation=kaiming",
    "train.phases.0.freeze_stages=-3",
]
TINY = [
    "data.input_size=[64, 96]",
    "data.workers=0",
    "data.phantom.films=6",
    "data.phantom.validation_films=2",
    "network.neck.depth=1",
    "network.neck.width=32",
    "network.neck.heads=4",
    "train.batch_size=3",
    "train.batch_norm_calibration=1",
    "train.precision=off",
    "train.phases=[{name: two_steps, epochs: 1}]",
]
