#!/usr/bin/env bash
# Fetches LiteRT.js and playwright-core, which drives a browser, for
# tests/test_web.py. Needs npm; the test also needs node and Chromium
# (apt-get install nodejs npm chromium).
#
#   tests/web.sh FOLDER
#   export KERAS_MOBILEVIT_NODE_MODULES=FOLDER/node_modules
#   python -m pytest tests/test_web.py
set -euo pipefail
folder=${1:?usage: tests/web.sh FOLDER}
mkdir -p "$folder"
npm install --prefix "$folder" --no-save --no-audit --no-fund --ignore-scripts \
  @litertjs/core@2.5.3 playwright-core@1.65.1
