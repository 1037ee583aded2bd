# Where a recipe runs, and with which Python. Recipes source it; it leaves `python` and `set_up`.
#
# In a checkout: at its root, in the environment that scripts/setup.sh makes. Copied elsewhere
# (`rsp-rl recipe NAME --copy DIR`): in the current folder, in the environment that is active, or in
# VENV; it must have rsp_rl.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [[ -f $root/scripts/setup.sh && -d $root/rsp_rl ]]; then
  cd "$root"
  python=${VENV:-.venv}/bin/python
  set_up() { bash scripts/setup.sh "$@"; }
else
  python=${VENV:+$VENV/bin/}python
  "$python" -c 'import rsp_rl' 2>/dev/null || {
    echo "error: $python has no rsp_rl; activate the environment that has it, or set VENV to its" \
      "folder" >&2
    exit 1
  }
  set_up() { :; }
fi
