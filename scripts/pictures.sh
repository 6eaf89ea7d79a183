#!/usr/bin/env bash
# Makes the pictures of the README: the real window at the end of the demo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=/tmp/medsam-demo  # it shows in the picture, so no place of one machine
runner=()
[ -n "${DISPLAY:-}" ] || runner=(xvfb-run -a -s "-screen 0 1600x1000x24")
"${runner[@]}" "${PYTHON:-.venv/bin/python}" -m napari_medsam.cli.main demo "$folder"
cp "$folder/window.png" docs/window.png
echo "docs/window.png"
