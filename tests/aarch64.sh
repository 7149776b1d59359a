#!/usr/bin/env bash
# Makes an aarch64 Python with LiteRT's official wheel, which runs on this
# x86-64 machine through qemu, for tests/test_aarch64.py. Needs mmdebstrap
# (apt-get install mmdebstrap), Debian's package server and PyPI; 1 GB on disk
# while it works, 250 MB afterwards.
#
#   tests/aarch64.sh FOLDER
#   export KERAS_MOBILEVIT_AARCH64=FOLDER/python
#   python -m pytest tests/test_aarch64.py
set -euo pipefail
folder=$(realpath -m "${1:?usage: tests/aarch64.sh FOLDER}")
python=${PYTHON:-python3}
debian=http://deb.debian.org/debian
# The same version on both sides, or the comparison says nothing.
version=$("$python" -c 'import importlib.metadata as m; print(m.version("ai-edge-litert"))')
mkdir -p "$folder"

# Trixie has Python 3.13, and qemu 10; qemu 7 crashes on this wheel.
mmdebstrap --quiet --variant=extract --architectures=arm64 \
  --include=python3-minimal,libpython3-stdlib,libstdc++6,zlib1g \
  trixie "$folder/root" "$debian"
ln -sfn usr/lib "$folder/root/lib" # where the loader is looked for
mmdebstrap --quiet --variant=extract --include=qemu-user \
  trixie "$folder/qemu" "$debian"
mv "$folder/qemu/usr/bin/qemu-aarch64" "$folder/qemu-aarch64"
rm -rf "$folder/qemu"

"$python" -m pip install --quiet --no-deps --target "$folder/packages" \
  --python-version 3.13 --only-binary=:all: --platform any \
  --platform manylinux_2_27_aarch64 --platform manylinux_2_17_aarch64 \
  "ai-edge-litert==$version" numpy backports.strenum flatbuffers tqdm \
  typing-extensions protobuf ml_dtypes

cat >"$folder/python" <<END
#!/bin/sh
export PYTHONPATH="$folder/packages" PYTHONNOUSERSITE=1
exec "$folder/qemu-aarch64" -L "$folder/root" "$folder/root/usr/bin/python3" "\$@"
END
chmod +x "$folder/python"
"$folder/python" -c "import platform, ai_edge_litert.interpreter; print(platform.machine())"
