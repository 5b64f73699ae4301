# Sourced by the other scripts. `ensure_env EXTRAS` makes the virtual environment with `.[EXTRAS]` (`.` for "") in it and
# sets PY to its python. It does nothing when that was done before with the same pyproject.toml.
# HAWQTVM_VENV: another place for the environment than .venv; PYTHON: the python that creates it.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

ensure_env() {
    local extras="$1"
    local venv="${HAWQTVM_VENV:-$ROOT/.venv}"
    local python="${PYTHON:-python3}"
    local stamp="$venv/.installed-${extras//,/-}"
    local wanted
    # an editable install points at one tree: another tree's environment is not done
    wanted="$ROOT $(cksum <"$ROOT/pyproject.toml")"
    PY="$venv/bin/python"
    if [[ -x "$PY" && -f "$stamp" && "$(cat "$stamp")" == "$wanted" ]]; then
        return 0
    fi
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "hawqtvm needs Python 3.11 or later as '$python': install it, or set PYTHON to one" >&2
        return 2
    fi
    echo "installing hawqtvm${extras:+[$extras]} into $venv ..." >&2
    if [[ ! -x "$PY" ]] && ! "$python" -m venv "$venv"; then
        echo "cannot create $venv: install the venv module of '$python' (Debian: apt install python3-venv)" >&2
        return 2
    fi
    if ! "$PY" -m pip install --quiet --disable-pip-version-check -e "$ROOT${extras:+[$extras]}" >&2; then
        echo "pip could not install hawqtvm${extras:+[$extras]}: see its message above" >&2
        return 2
    fi
    # last, so that an interrupted install starts again
    echo "$wanted" >"$stamp"
}
