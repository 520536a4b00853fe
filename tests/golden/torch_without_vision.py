"""An empty torchvision, for timm where it is not installed: timm imports it for models we do not compare."""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from unittest import mock


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Every module of torchvision, empty."""

    def find_spec(self, fullname, path, target=None):
        if fullname.split(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        module = mock.MagicMock(name=spec.name)
        module.FrozenBatchNorm2d = type("FrozenBatchNorm2d", (), {})
        return module

    def exec_module(self, module):
        pass


def stand_in():
    """Puts the empty module in the place of a torchvision that is not there."""
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(_Absent())
