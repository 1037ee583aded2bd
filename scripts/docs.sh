#!/usr/bin/env bash
# The documentation site: sets up .venv-docs, builds into site/ strictly, checks every link of what
# was built.
#
#   scripts/docs.sh          build and check (what CI runs)
#   scripts/docs.sh serve    show it on this machine while it is written
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=.venv-docs # its own: MkDocs' dependencies are none of the training's
stamp=$VENV/.rsp_rl_docs

python=""
for candidate in .venv/bin/python python3.11 python3.12 python3 python; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    python=$candidate
    break
  fi
done
[[ -n $python ]] || { echo "docs: error: no Python of 3.11 or above found" >&2; exit 1; }

mapfile -t wanted < <("$python" -c 'import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")')
if [[ ! -f $stamp || $(cat "$stamp") != "${wanted[*]}" ]]; then
  echo "docs: installing ${wanted[*]} into $VENV"
  "$python" -m venv --clear "$VENV"
  if ! "$VENV/bin/python" -m pip --disable-pip-version-check install -qq "${wanted[@]}"; then
    echo "docs: error: THE SITE WAS NOT BUILT: ${wanted[*]} could not be had from the package index" \
      "(see pip's message above)" >&2
    exit 1
  fi
  echo "${wanted[*]}" > "$stamp"
fi

export NO_MKDOCS_2_WARNING=1 # the theme's notice about another project
if [[ ${1:-} == serve ]]; then
  exec "$VENV/bin/python" -m mkdocs serve --strict
fi
"$VENV/bin/python" -m mkdocs build --strict --site-dir site
"$VENV/bin/python" scripts/docs/links.py site
