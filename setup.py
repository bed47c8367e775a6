"""Where the import packages lie in the checkout; everything else about the distribution is in pyproject.toml.

``tools/`` and ``recipes/`` are folders of the checkout that people run and read. Installed, they are modules of
``sdrrl_nemo``, so that the wheel claims no name at the top level but ``sdrrl_nemo`` and ``sdrrl_kernels``.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["sdrrl_nemo*"]), "sdrrl_nemo.recipes", "sdrrl_nemo.tools", "sdrrl_kernels"],
    package_dir={
        "sdrrl_kernels": "kernels/sdrrl_kernels",
        "sdrrl_nemo.recipes": "recipes",
        "sdrrl_nemo.tools": "tools",
    },
)
