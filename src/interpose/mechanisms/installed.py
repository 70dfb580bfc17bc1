"""Is a package there, of which an extra has need?"""

from importlib import import_module


def is_installed(package: str) -> bool:
    """Can it be imported? A package that is there and broken counts as missing."""
    try:
        import_module(package)
    except ImportError:
        return False
    return True
