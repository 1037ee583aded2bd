"""What a wheel holds: `rsp_rl`, and inside it the folders that lie beside it in a checkout.

Everything else is in pyproject.toml, which cannot both find packages and map folders to them.
`rsp_rl.basics.package_files` finds the folders in either place.
"""

import sys

from setuptools import find_packages, setup

FOLDERS = {
    "rsp_rl._files.configs": "configs",
    "rsp_rl._files.eval.protocols": "eval/protocols",
    "rsp_rl._files.recipes": "recipes",
}
if "editable_wheel" in sys.argv:  # a plain path to the checkout then, where the folders are
    FOLDERS = {}

setup(
    packages=[*find_packages(include=["rsp_rl", "rsp_rl.*"]), *FOLDERS],
    package_dir=FOLDERS or {"": "."},
    include_package_data=False,  # not whatever lies there: what is named here
    package_data={
        "rsp_rl": ["py.typed"],
        "rsp_rl.analysis": ["*.html", "*.css"],
        "rsp_rl.display": ["*.html", "*.css", "*.js"],
        "rsp_rl.evaluation": ["*.html", "*.js"],
        "rsp_rl.reproduce": ["*.css"],
        "rsp_rl.runs": ["*.html", "*.css", "*.js"],
        "rsp_rl._files.configs": ["**/*.yaml"],
        "rsp_rl._files.eval.protocols": ["*.yaml"],
        "rsp_rl._files.recipes": ["**/*.sh"],
    },
)
