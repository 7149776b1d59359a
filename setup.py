"""Packaging of keras_mobilevit."""

import shutil
from pathlib import Path

from setuptools import find_packages
from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = {}
exec((ROOT / "keras_mobilevit" / "version.py").read_text(), VERSION)

TEST = ["pytest>=8", "pytest-xdist>=3.5", "ruff>=0.8", "build>=1.2"]


class BuildWithPage(build_py):
    """Puts the page of `serve_demo` into the wheel, beside its code."""

    def run(self):
        """Builds the modules, then copies the page."""
        super().run()
        if not self.editable_mode:  # a clone has it in tflite/web
            shutil.copytree(
                ROOT / "tflite" / "web",
                Path(self.build_lib, "keras_mobilevit", "tflite", "web"),
                ignore=shutil.ignore_patterns("*.md"),
                dirs_exist_ok=True,
            )


setup(
    cmdclass={"build_py": BuildWithPage},
    name="keras_mobilevit",
    version=VERSION["__version__"],
    description="MobileViT for Keras 3, from fine-tuning to int8 TFLite",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["keras_mobilevit", "keras_mobilevit.*"]),
    package_data={"keras_mobilevit": ["py.typed"]},
    python_requires=">=3.11,<3.14",
    install_requires=[
        "tensorflow>=2.19,<2.22",
        "keras>=3.12",
        # It imports distutils, which Python 3.12 has only through setuptools.
        "tensorflow-model-optimization>=0.8",
        "setuptools",
        "tensorflow-datasets>=4.9",
        # tensorflow-datasets needs these two and does not declare them.
        "importlib_resources",
        "pillow>=10",
        "absl-py>=1.2",
        "numpy>=1.26",
        "ai-edge-litert>=2.1",
        "litert-quantizer>=0.11",
        "huggingface_hub>=1.0",
        "safetensors>=0.5",
        "tqdm>=4.66",
        "matplotlib>=3.8",
    ],
    extras_require={
        "examples": ["scikit-learn>=1.4"],
        "test": [*TEST, "scikit-learn>=1.4"],
        "parity": ["torch>=2.4", "transformers>=4.46"],
        "jax": ["jax>=0.4.35"],
    },
    entry_points={
        "console_scripts": ["keras-mobilevit=keras_mobilevit.cli:main"]
    },
    classifiers=[
        "Intended Audience :: Developers",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
)
