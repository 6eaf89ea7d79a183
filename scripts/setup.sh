#!/usr/bin/env bash
# Makes .venv with this project installed in it: setup.sh EXTRAS, for example "all,dev"; --system-only stops before.
# On Debian and Ubuntu it also installs the libraries a Qt window needs, when they are missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extras="${1:-all}"

system_packages=(
  xvfb xauth fonts-dejavu-core
  libegl1 libgl1 libgl1-mesa-dri libopengl0 libglib2.0-0 libdbus-1-3 libfontconfig1
  libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0
  libxcb-render-util0 libxcb-xinerama0 libxcb-shape0
)

installed() {  # newer Ubuntu releases rename some libraries to NAMEt64
  local status
  status="$(dpkg-query -W -f='${Status}\n' "$1" "$1t64" 2>/dev/null || true)"
  [[ "$status" == *"install ok installed"* ]]
}

install_packages() {
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "Missing system packages, and no root here to install them. Ask for: $*" >&2
      return 0
    fi
    as_root=(sudo)
  fi
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
  missing=()
  for package in "${system_packages[@]}"; do installed "$package" || missing+=("$package"); done
  [ "${#missing[@]}" -eq 0 ] || install_packages "${missing[@]}"
fi

[ "$extras" != --system-only ] || exit 0

find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "Python 3.11 or newer is needed, and none was found." >&2
  return 1
}

venv_python=.venv/bin/python
stamp=.venv/installed-extras
project="$(cksum < pyproject.toml)"
if [ ! -x "$venv_python" ]; then
  python="$(find_python)"
  if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    install_packages "python$version-venv"
  fi
  "$python" -m venv .venv
fi
present="$(cat "$stamp" 2>/dev/null || true)"
if [ "$present" != "$extras $project" ] && [ "$present" != "$extras,dev $project" ]; then
  "$venv_python" -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
  echo "$extras $project" > "$stamp"
fi
