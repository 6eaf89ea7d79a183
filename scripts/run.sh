#!/usr/bin/env bash
# Installs what is missing and opens napari with the MedSAM dock: run.sh [IMAGE...] [--sample NAME].
# Without arguments it opens the histology sample. Without a screen it runs the self-driving demo instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh all
[ "$#" -gt 0 ] || set -- --sample ihc

if [ "$(uname -s)" = Linux ] && [ -z "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
  echo "There is no screen here: the demo draws in a virtual one. See out/demo/window.png afterwards."
  exec xvfb-run -a -s "-screen 0 1600x1000x24" .venv/bin/napari-medsam demo out/demo
fi
exec .venv/bin/napari-medsam open "$@"
