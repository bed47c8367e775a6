"""Where the import packages lie in the checkout; everything else about the distribution is in pyproject.toml.

``tools/`` and ``recipes/`` are folders of the checkout that people run and read, ``requirements/`` its locks.
Installed, they are inside ``sdrrl_nemo``, so that the wheel claims no name at the top level but ``sdrrl_nemo`` and
``sdrrl_kernels``. Of the locks only COMET's goes along: ``sdrrl comet-env`` makes that environment anywhere.
"""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

FOLDERS = {
    f"sdrrl_nemo.{name.replace('/', '.')}": name
    for name in (
        "recipes",
        "requirements",
        "tools",
        "tools/bench",
        "tools/bench/kernels",
        "tools/bench/training",
        "tools/docs",
        "tools/gpu",
    )
}


class BuildPy(build_py):
    """Adds a file by name where pyproject.toml's patterns, which hold for every package, would take too much."""

    def find_data_files(self, package: str, src_dir: str) -> list[str]:
        """Files of a package that are not Python."""
        more = sorted(map(str, Path(src_dir).glob("comet*.txt"))) if package == "sdrrl_nemo.requirements" else []
        return [*super().find_data_files(package, src_dir), *more]


setup(
    packages=[*find_packages(include=["sdrrl_nemo*"]), *FOLDERS, "sdrrl_kernels"],
    package_dir={"sdrrl_kernels": "kernels/sdrrl_kernels", **FOLDERS},
    cmdclass={"build_py": BuildPy},
)
