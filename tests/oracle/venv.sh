# Sourced: makes (once, in the cache folder) a Python environment with the oracle's pinned packages, and names its
# interpreter in CLICKLEDGER_PYTHON.
_here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
_venv="${CLICKLEDGER_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/clickledger-venv}"
if ! cmp -s "$_here/requirements.txt" "$_venv/installed.txt"; then
    python3 -m venv --clear "$_venv"
    "$_venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$_here/requirements.txt" >&2
    cp "$_here/requirements.txt" "$_venv/installed.txt"
fi
export CLICKLEDGER_PYTHON="$_venv/bin/python"
