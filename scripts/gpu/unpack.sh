#!/usr/bin/env bash
# Unpacks the kit that scripts/gpu/pack.sh made, and makes an environment of it. No network.
#
#   unpack.sh PARTS DIR [PYTHON]     parts in PARTS, kit into DIR, over PYTHON's packages
#
# DIR/env/bin/python has the kit's packages in front of PYTHON's (default: python3). Both are named
# in a .pth file, so that child processes (Ray's workers, vLLM's engine core) have them as well.
set -euo pipefail
die() { echo "unpack: error: $*" >&2; exit 1; }
[[ $# -ge 2 ]] || die "usage: unpack.sh PARTS DIR [PYTHON]"
parts=$1 dir=$2 python=$(command -v "${3:-python3}") || die "no ${3:-python3}"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[[ $version == 3.12 ]] || die "the kit is for Python 3.12; $python is $version"

(cd "$parts" && sha256sum --quiet -c SHA256SUMS) || die "$parts is not whole"
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
if cmp -s "$parts/SHA256SUMS" "$dir/SHA256SUMS"; then
  echo "unpack: $dir has this kit; source $dir/env/bin/activate"
  exit 0
fi
[[ -z $(ls -A "$dir") ]] || die "$dir is not empty; remove it or name another"
cat "$parts"/kit.[0-9]* | xz -dcT0 | tar -x -C "$dir"

"$python" -m venv --without-pip "$dir/env"
site=$("$dir/env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$python" - "$dir/site" > "$site/kit.pth" <<'PY'
import site, sys
for folder in [sys.argv[1], *site.getsitepackages()]:
    print(f"import site; site.addsitedir({folder!r})")
# vLLM takes FlashInfer for granted when it samples, unless told; the kit has none.
print("import os; os.environ.setdefault('VLLM_USE_FLASHINFER_SAMPLER', '0')")
PY
for script in "$dir"/site/bin/*; do
  if head -n 1 "$script" | grep -aq '^#!.*python'; then
    { echo "#!$dir/env/bin/python"; tail -n +2 "$script"; } > "$dir/env/bin/${script##*/}"
    chmod +x "$dir/env/bin/${script##*/}"
  fi
done

# Once, on all cores: each process of a run would compile anew where PYTHONDONTWRITEBYTECODE is set.
# What does not compile is no module that is imported.
"$dir/env/bin/python" -m compileall -qq -j 0 "$dir/site" || true

"$dir/env/bin/python" - <<'PY'
import importlib
from importlib.metadata import version

MODULES = {
    "torch": "torch", "transformers": "transformers", "vllm": "vllm", "verl": "verl", "ray": "ray",
    "tensordict": "tensordict", "transfer_queue": "TransferQueue", "rsp_rl": "rsp-rl",
    "hydra": "hydra-core", "datasets": "datasets", "math_verify": "math-verify",
}
for module, package in MODULES.items():
    importlib.import_module(module)
    print(f"unpack: {package} {version(package)}")
PY
cp "$parts/SHA256SUMS" "$dir"
echo "unpack: done; now:  source $dir/env/bin/activate"
