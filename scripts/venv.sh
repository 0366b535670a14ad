# Sourced by the other scripts: a virtual environment in .venv with daskpki and the extras named in $1, brought up to
# date when pyproject.toml has changed. Needs nothing but Python 3.11 or newer with its venv module. With WITH_UV=1, uv
# installs the packages: in a tenth of pip's time, but from PyPI whatever pip is set to, so pip is asked if uv fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extras=$1

find_python() {
  for candidate in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "daskpki needs Python 3.11 or newer with its venv module (on Debian: apt install python3-venv)" >&2
  return 1
}

stamp=.venv/.daskpki-$extras
if [ ! -x .venv/bin/python ]; then
  python=$(find_python)
  "$python" -m venv .venv
fi
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
  echo "installing daskpki[$extras] into .venv ..." >&2
  pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
  if [ -z "${WITH_UV-}" ] || ! { "${pip[@]}" uv && .venv/bin/uv pip install --quiet --python .venv --editable ".[$extras]"; }; then
    "${pip[@]}" --editable ".[$extras]"
  fi
  touch "$stamp"
fi
export PATH="$PWD/.venv/bin:$PATH"
