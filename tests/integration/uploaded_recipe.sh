#!/usr/bin/env bash
# A recipe for tests/integration/test_ray_jobs.py: says where its files are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

RUN_DIR=${RUN_DIR:-runs/uploaded}

echo "recipe in $PWD"
"${VENV:-.venv}/bin/python" -m rsp_rl.cli --version
"${VENV:-.venv}/bin/python" - "$RUN_DIR" <<'PY'
import sys
from pathlib import Path

import ray

import rsp_rl


@ray.remote
def where() -> str:
    import rsp_rl

    return str(Path(rsp_rl.__file__).parent.parent)


ray.init()
found = [str(Path(rsp_rl.__file__).parent.parent), ray.get(where.remote())]
Path(sys.argv[1], "where").write_text("\n".join(found))
PY
