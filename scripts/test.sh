#!/usr/bin/env bash
# Installs what is missing and runs every check: style, types, room order, manifest, tests without Qt, GUI tests.
# All checks run even when one fails; the exit status is 0 only when all passed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export PATH="$PWD/.venv/bin:$PATH" PYTHONDONTWRITEBYTECODE=1
reports="${REPORTS:-out/reports}"
mkdir -p "$reports"
rm -f "$reports"/*.xml "$reports/failed-checks"
if ! bash scripts/setup.sh all,dev; then
  echo setup >> "$reports/failed-checks"
  exit 1
fi
failed=()

check() {
  local name="$1"
  shift
  echo "=== $name"
  "$@" && return
  failed+=("$name")
  echo "$name" >> "$reports/failed-checks"
}

on_screen=()
[ "$(uname -s)" != Linux ] || on_screen=(xvfb-run -a -s "-screen 0 1600x1000x24")

coverage=(--cov --cov-report=term:skip-covered)
[ "$#" -eq 0 ] || coverage=()  # a choice of tests says nothing about coverage

check "ruff" ruff check .
check "ruff format" ruff format --check .
check "mypy" mypy
check "room order" lint-imports --no-cache
check "manifest" python -m npe2 validate napari-medsam
check "rooms" python -m pytest -p scripts.no_qt -p no:pytest-qt -p no:napari \
  --ignore tests/ui --ignore tests/layers "${coverage[@]}" --junitxml="$reports/rooms.xml" "$@"
check "layers" python -m pytest -p scripts.no_window -p no:pytest-qt -p no:napari tests/layers \
  --junitxml="$reports/layers.xml" "$@"
check "ui" "${on_screen[@]}" python -m pytest tests/ui --junitxml="$reports/ui.xml" "$@"

if [ "${#failed[@]}" -gt 0 ]; then
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
echo "Every check passed."
