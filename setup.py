"""The package for pip and for colcon alike."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "dfd_ros"
# What compiles the CUDA kernels, for any GPU and on machines without one.
CUDA = ["cuda-bindings>=13", "nvidia-cuda-nvrtc>=13"]
# What trains and scores networks.
TRAIN = [
    "torch>=2.5",
    "h5py>=3.10",
    "lightning>=2.4",
    "pydantic>=2.6",
    "safetensors>=0.4",
    "tensorboardX>=2.6",
    "torchmetrics>=1.4",
]
# What exports networks and runs them.
INFER = ["torch>=2.5", "onnx>=1.16", "onnxruntime>=1.18", "openvino>=2024.4", "safetensors>=0.4"]
# TensorRT's plugin registry and its Python, with which plugins are tested; what builds engines is not on PyPI. 47 MB.
LEAN = ["tensorrt-cu13-bindings", "tensorrt-lean-cu13-bindings", "tensorrt-lean-cu13-libs"]
LEAN = [f"{name}>=11.4; platform_machine == 'x86_64'" for name in LEAN]
# What reads and writes bags and data sets by URL.
URLS = ["fsspec>=2024.6", "universal-pathlib>=0.3"]


def files_below(folder: str) -> list[tuple[str, list[str]]]:
    """The files below a folder as data_files that keep their place under share/dfd_ros."""
    places: dict[str, list[str]] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            places.setdefault(f"share/{NAME}/{path.parent.as_posix()}", []).append(path.as_posix())
    return list(places.items())


setup(
    name=NAME,
    version="0.1.0",
    description="Depth from defocus with an electrically switched aperture, on ROS 2",
    license="Apache-2.0",
    maintainer="dfd_ros maintainers",
    maintainer_email="maintainers@dfd-ros.invalid",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["zoo/*"], f"{NAME}.optics.kernels": ["*.cu", "*.cuh"]},
    python_requires=">=3.11",
    install_requires=[
        "matplotlib>=3.6",
        "mcap>=1.1",
        "numba>=0.58",
        "numpy>=1.26",
        "opencv-python-headless>=4.6,<5",
        "pyserial>=3.5",
        "pyyaml>=6",
        "rich>=13",
        "rosbags>=0.10",
        "scikit-image>=0.22",
        "scipy>=1.11",
        "threadpoolctl>=3.1",
        "typer>=0.9",
    ],
    extras_require={
        # A machine without a ROS 2 distribution takes rclpy and the middleware from PyPI.
        "wheels": [
            "dfd-msgs",
            "ros-kilted-diagnostic-msgs",
            "ros-kilted-rclpy",
            "ros-kilted-rmw-fastrtps-cpp",
            "ros-kilted-sensor-msgs",
        ],
        # The PSF layer and what is trained through it.
        "torch": ["torch>=2.5"],
        "cuda": CUDA,
        # dfd dataset build on a cluster, and in object storage; s3fs, gcsfs or adlfs beside it for the storage's kind.
        "fleet": ["distributed>=2024.1", *URLS],
        "infer": INFER,
        # What the back end tensorrt needs beside TensorRT itself.
        "tensorrt": [*INFER, *CUDA],
        "train": TRAIN,
        "test": [
            *TRAIN,
            *INFER,
            *URLS,
            "hypothesis>=6",
            "mypy>=1.10",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.6",
            *CUDA,
            *LEAN,
        ],
    },
    entry_points={
        "console_scripts": ["dfd = dfd_ros.cli:main"],
        "dfd_ros.aperture_drivers": [
            "sim = dfd_ros.capture.drivers:SimulatedDriver",
            "serial = dfd_ros.capture.serial_driver:SerialDriver",
        ],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        # pip knows no install_scripts: `ros2 run` and `ros2 launch` look for executables here.
        (f"lib/{NAME}", [path.as_posix() for path in sorted(Path("scripts").iterdir())]),
        *files_below("launch"),
        *files_below("config"),
    ],
    zip_safe=False,
)
