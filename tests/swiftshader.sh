#!/usr/bin/env bash
# Fetches SwiftShader, a GPU in software, for tests/test_gpu.py, and unpacks it
# into a folder. Nothing is installed. Needs Debian's or Ubuntu's apt.
#
#   tests/swiftshader.sh FOLDER
#   export KERAS_MOBILEVIT_SWIFTSHADER=FOLDER
#   python -m pytest tests/test_gpu.py
set -euo pipefail
folder=${1:?usage: tests/swiftshader.sh FOLDER}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
cd "$packages"
apt-get download chromium-common ||
  { apt-get update && apt-get download chromium-common; }
dpkg-deb -x chromium-common_*.deb .
cp usr/lib/chromium/libvk_swiftshader.so usr/lib/chromium/libvulkan.so.1 \
  usr/lib/chromium/vk_swiftshader_icd.json "$folder"
ls -l "$folder"
